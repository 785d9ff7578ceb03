"""The decorator ``remote``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from mobula._actor import ActorClass
from mobula._function import RemoteFunction

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Decorator(Protocol):
    """What makes functions and classes remote, with options."""

    @overload
    def __call__(self, __class: type[T]) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, __function: Callable[P, R]) -> RemoteFunction[P, R]: ...


@overload
def remote(__class: type[T]) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(__function: Callable[P, R]) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Any) -> _Decorator: ...
def remote(*args: Any, **options: Any) -> Any:
    """Make a function a remote function, and a class an actor class.

    Use it as ``@remote``, or with options as ``@remote(num_cpus=2)``. Everything that the function or the class refers
    to is sent with it, as it is at its first call. ::

        import mobula as ray

        @ray.remote
        def square(x):
            return x * x

        @ray.remote(num_cpus=0.5)
        class Counter:
            def __init__(self, value):
                self.value = value

            def add(self, number):
                self.value += number
                return self.value

        counter = Counter.remote(10)
        assert ray.get(counter.add.remote(square.remote(3))) == 19  # a reference as an argument: the value arrives
    """
    if len(args) == 1 and not options:
        return _make(args[0], {})
    if args or not options:
        raise TypeError(
            "The @ray.remote decorator must be applied either with no arguments and no parentheses, for example "
            "'@ray.remote', or it must be applied using some of the arguments in the list"
        )
    return lambda thing: _make(thing, options)


def _make(thing: Any, options: dict[str, Any]) -> Any:
    if inspect.isclass(thing):
        return ActorClass(thing, options)
    if callable(thing) and not isinstance(thing, RemoteFunction | ActorClass):
        return RemoteFunction(thing, options)
    raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")
