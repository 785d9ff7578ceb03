"""Whether the arguments of a call fit its function: a call that does not fails where it is made."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

# By their numbers.
_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """The arguments that a function takes."""

    __slots__ = ("_at_least", "_at_most", "_signature")

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters.values()
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        # Arguments by position alone, the usual case, fit if there are so many of them.
        self._at_least = sum(parameter.default is inspect.Parameter.empty for parameter in positional)
        self._at_most = float(len(positional))
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self._at_most = float("inf")
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty:
                self._at_most = -1.0

    @property
    def positional(self) -> tuple[int, int]:
        """How many arguments by position fit where none is given by name: at least, and at most."""
        most = min(self._at_most, float(sys.maxsize // 2))
        return (self._at_least, int(most)) if most >= 0 else (1, 0)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ``TypeError`` if the arguments do not fit."""
        if kwargs or not self._at_least <= len(args) <= self._at_most:
            self._signature.bind(*args, **kwargs)

    def described(self) -> list[tuple[str, int, bool]]:
        """Return the name and the kind of each argument, and whether it has a default."""
        parameters = self._signature.parameters.values()
        return [(of.name, int(of.kind), of.default is not inspect.Parameter.empty) for of in parameters]

    @staticmethod
    def of_description(description: list[tuple[str, int, bool]]) -> Signature:
        """Return the arguments that :meth:`described` has described."""
        # Defaults and annotations may be anything: only whether there is a default matters.
        parameters = [
            inspect.Parameter(name, _KINDS[kind], default=None if has_default else inspect.Parameter.empty)
            for name, kind, has_default in description
        ]
        return Signature(inspect.Signature(parameters))

    def __reduce__(self) -> Any:
        return (Signature.of_description, (self.described(),))


def of_function(function: Callable[..., Any]) -> Signature | None:
    """The arguments of a function; ``None``: nobody knows."""
    try:
        return Signature(inspect.signature(function))
    except (TypeError, ValueError):
        return None


def of_method(cls: type, name: str) -> Signature | None:
    """The arguments of a method, without ``self``."""
    if name == "__init__" and getattr(cls, name) is object.__init__:
        # A class that has a `__new__` of its own takes the arguments of that.
        return Signature(inspect.Signature()) if getattr(cls, "__new__") is object.__new__ else None  # noqa: B009
    try:
        signature = inspect.signature(getattr(cls, name))
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    is_bound = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
    if not is_bound and parameters and parameters[0].kind in _POSITIONAL:
        signature = signature.replace(parameters=parameters[1:])
    return Signature(signature)


def takes(signature: Signature | None) -> tuple[int, int, Callable[..., None] | None]:
    """What the extension module looks at before a call: the numbers that fit, and what checks all other arguments."""
    return (0, sys.maxsize, None) if signature is None else (*signature.positional, signature.check)
