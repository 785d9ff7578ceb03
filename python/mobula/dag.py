"""Graphs of calls: ``f.bind(…)`` says what to call, and ``execute`` calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class DAGNode:
    """A call that is made when the graph is executed. Nodes among its arguments are executed first."""

    def __init__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
        self._args, self._kwargs = args, kwargs or {}

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Make the calls of the graph. The arguments are what its input is. Returns what the last call returns."""
        return _resolved(self, {}, _Given(args, kwargs))

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        raise NotImplementedError

    def experimental_compile(self, **_: Any) -> Any:
        raise NotImplementedError("mobula has no compiled graphs: call execute(), whose calls take microseconds")


class _Given:
    """The input of a graph."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs


def _resolved(value: Any, done: dict[int, Any], given: _Given) -> Any:
    """Return a value with the results of the nodes in it in place of them. Each node is executed once."""
    if isinstance(value, DAGNode):
        if id(value) not in done:
            args = [_resolved(arg, done, given) for arg in value._args]
            kwargs = {name: _resolved(arg, done, given) for name, arg in value._kwargs.items()}
            done[id(value)] = value._executed(args, kwargs, given)
        return done[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_resolved(part, done, given) for part in value)
    if type(value) is dict:
        return {name: _resolved(part, done, given) for name, part in value.items()}
    return value


class FunctionNode(DAGNode):
    """A call of a remote function, or of a method of an actor that there is."""

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._call = call

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        return self._call(*args, **kwargs)


class ClassNode(DAGNode):
    """An actor that starts with the first execution of the graph, and stays for the next ones."""

    def __init__(self, start: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._start, self._lock = start, threading.Lock()
        self._actor: Any = None

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        with self._lock:
            if self._actor is None:
                self._actor = self._start(*args, **kwargs)
        return self._actor

    def __getattr__(self, name: str) -> _Unbound:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Unbound(self, name)


class _Unbound:
    """A method of an actor that starts with the graph."""

    def __init__(self, actor: ClassNode, name: str, options: dict[str, Any] | None = None) -> None:
        self._actor, self._name, self._options = actor, name, options or {}

    def options(self, **options: Any) -> _Unbound:
        """Return the method with options."""
        return _Unbound(self._actor, self._name, {**self._options, **options})

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """Call the method when the graph is executed."""
        return ClassMethodNode(self._name, self._options, (self._actor, *args), kwargs)


class ClassMethodNode(DAGNode):
    """A call of a method of an actor that starts with the graph."""

    def __init__(self, name: str, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._name, self._options = name, options

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        actor, *others = args
        method = getattr(actor, self._name)
        return (method.options(**self._options) if self._options else method).remote(*others, **kwargs)


class InputNode(DAGNode):
    """The input of a graph: ``with InputNode() as given``.

    Its parts are ``given[0]``, ``given["name"]`` and ``given.name``.
    """

    def __enter__(self) -> InputNode:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        return InputAttributeNode(key, isinstance(key, int))

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("_"):
            raise AttributeError(name)
        return InputAttributeNode(name, False)

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        if len(given.args) == 1 and not given.kwargs:
            return given.args[0]
        raise ValueError(
            f"the graph takes its input as a whole, and got {len(given.args)} arguments by position and "
            f"{len(given.kwargs)} by name: give one, or use parts of the input"
        )


class InputAttributeNode(DAGNode):
    """A part of the input of a graph."""

    def __init__(self, key: int | str, is_position: bool) -> None:
        super().__init__()
        self._key, self._is_position = key, is_position

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        if len(given.args) == 1 and not given.kwargs and not (self._is_position and self._key == 0):
            whole = given.args[0]
            if isinstance(whole, dict | list | tuple):
                return whole[self._key]  # type: ignore[index]
            return getattr(whole, str(self._key))
        return given.args[int(self._key)] if self._is_position else given.kwargs[str(self._key)]


class MultiOutputNode(DAGNode):
    """Several results of a graph: ``execute`` returns a list of them."""

    def __init__(self, args: list[DAGNode] | tuple[DAGNode, ...]) -> None:
        super().__init__(tuple(args))

    def _executed(self, args: list[Any], kwargs: dict[str, Any], given: _Given) -> Any:
        return args


__all__ = [
    "ClassMethodNode",
    "ClassNode",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
]
