"""Marks and spans of a program in the timeline of its session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobula import _mobula

if TYPE_CHECKING:
    from types import TracebackType


def mark(name: str, value: int = 0) -> None:
    """Record a mark with a number, such as an epoch, in the timeline. Does nothing without a session.

    ::

        import mobula

        mobula.init()
        mobula.mark("epoch", 3)
        assert any(event["name"] == "epoch" for event in mobula.timeline())
    """
    _mobula.mark(name, value)


class span:
    """A named span in the timeline.

    ::

        import mobula

        mobula.init()
        with mobula.span("load"):
            numbers = list(range(1000))
        assert any(event["name"] == "load" for event in mobula.timeline())
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._spans: list[_mobula.Span] = []

    def __enter__(self) -> span:
        self._spans.append(_mobula.Span(self._name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spans.pop().end()
