"""Functions and classes of Rust programs.

A Rust program exports them with ``#[mobula::remote(export = "name")]``, and Python calls them by their names::

    import mobula as ray

    program = ray.rust.program("target/release/my_program")
    doubled = program("scale").remote(array, 2.0)            # a function
    total = program.actor("Total").remote(0.0)               # a class
    print(ray.get(total.add.remote(doubled)))

The program's workers are the program itself, started again, without its ``main``. Calls are like all others: references
among the arguments are waited for, and results are references.

Arguments and results are values that both languages have: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``,
``list``, ``tuple``, ``dict``, arrays of numpy, and Arrow data (``pyarrow``, ``polars``, ``pandas``). Arrays and Arrow
data are read where they lie. What ``mobula.put`` and Python functions make is in a format of Python's own, which is
faster, and which Rust cannot read. So pass a value to a Rust function itself, or put it by ``put`` of this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mobula import _mobula, _options
from mobula._mobula import ObjectRef
from mobula._session import ensure
from mobula._stream import IN_FLIGHT_MAX, ObjectRefGenerator

__all__ = ["RustActorClass", "RustActorHandle", "RustFunction", "RustProgram", "program", "put"]


def program(path: str | os.PathLike[str]) -> RustProgram:
    """Return a Rust program: its functions by calling it, its classes by ``actor``.

    Raises:
        FileNotFoundError: There is no such program.
    """
    return RustProgram(path)


def put(value: Any) -> ObjectRef[Any]:
    """Copy a value into the store, in a format that programs of all languages read, and return a reference to it.

    Raises:
        TypeError: A part of the value has no form that other languages read.
    """
    if not _mobula.is_initialized():
        ensure()
    return _mobula.put_portable(value)


class RustProgram:
    """A Rust program: what ``program`` returns."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        if not os.access(self.path, os.X_OK):
            raise FileNotFoundError(f"there is no program {self.path!r}: build it first, as by `cargo build --release`")

    def __call__(self, name: str) -> RustFunction:
        """Return the function that the program exports under a name."""
        return RustFunction(self.path, name, {})

    def actor(self, name: str) -> RustActorClass:
        """Return the class that the program exports under a name."""
        return RustActorClass(self.path, name, {})

    def __repr__(self) -> str:
        return f"RustProgram({self.path!r})"


class RustFunction:
    """A function of a Rust program."""

    def __init__(self, path: str, name: str, options: dict[str, Any]) -> None:
        self._path, self._name, self._options = path, name, options
        self._function = _mobula.RustFunction(path, name)
        self._prepared = _options.of_task(options)
        self._num_returns = _num_returns(options)

    def remote(self, *args: Any) -> Any:
        """Call the function in a worker of its program. Arguments have no names."""
        if not _mobula.is_initialized():
            ensure()
        result = self._function.call(args, self._prepared, self._num_returns, IN_FLIGHT_MAX)
        return ObjectRefGenerator(result) if self._num_returns == -1 else result

    def options(self, **options: Any) -> RustFunction:
        """Return the function with other options: ``num_cpus=2``. A stream has ``num_returns="streaming"``."""
        _options.check(options, is_actor=False)
        return RustFunction(self._path, self._name, {**self._options, **options})

    def __reduce__(self) -> Any:
        return (RustFunction, (self._path, self._name, self._options))


class RustActorClass:
    """A class of a Rust program."""

    def __init__(self, path: str, name: str, options: dict[str, Any]) -> None:
        self._path, self._name, self._options = path, name, options

    def remote(self, *args: Any) -> RustActorHandle:
        """Start an actor, in a process of its own. It ends with its last handle."""
        if not _mobula.is_initialized():
            ensure()
        actor = _mobula.RustActor(self._path, self._name, _options.of_actor(self._options), args)
        return RustActorHandle(actor, self._name)

    def options(self, **options: Any) -> RustActorClass:
        """Return the class with other options."""
        _options.check(options, is_actor=True)
        return RustActorClass(self._path, self._name, {**self._options, **options})

    def __reduce__(self) -> Any:
        return (RustActorClass, (self._path, self._name, self._options))


class RustActorHandle:
    """An actor of a Rust program. Its methods are attributes: ``handle.add.remote(1)``."""

    def __init__(self, actor: _mobula.RustActor, name: str) -> None:
        self._mobula_actor, self._mobula_name = actor, name

    def __getattr__(self, name: str) -> RustMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return RustMethod(self._mobula_actor, name, 1)

    def __repr__(self) -> str:
        return f"RustActorHandle({self._mobula_name})"


class RustMethod:
    """A method of an actor of a Rust program."""

    def __init__(self, actor: _mobula.RustActor, name: str, num_returns: int) -> None:
        self._call: Callable[..., Any] = actor.call
        self._actor, self._name, self._num_returns = actor, name, num_returns

    def remote(self, *args: Any) -> Any:
        """Call the method. Calls of one caller run in the order in which they were made."""
        result = self._call(self._name, args, self._num_returns, IN_FLIGHT_MAX)
        return ObjectRefGenerator(result) if self._num_returns == -1 else result

    def options(self, **options: Any) -> RustMethod:
        """Return the method with another ``num_returns``."""
        if options.keys() - {"num_returns"}:
            raise ValueError("a method of a Rust actor has the option num_returns alone")
        return RustMethod(self._actor, self._name, _num_returns(options))


def _num_returns(options: dict[str, Any]) -> int:
    wanted = options.get("num_returns")
    _options.check_num_returns(wanted)
    if wanted in ("streaming", "dynamic"):
        return -1
    return 1 if wanted is None else int(wanted)
