"""Streams: functions whose results come while they run."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from mobula import _mobula
from mobula._mobula import ObjectRef

T = TypeVar("T")

# The most results that have come and that nobody has taken. The function waits when there are so many.
IN_FLIGHT_MAX = 128


class ObjectRefGenerator(Generic[T]):
    """The references to the results of a generator, in their order: an iterator, and an asynchronous one.

    Dropping it ends the generator.
    """

    def __init__(self, items: _mobula.Items) -> None:
        self._items = items
        # The next item, if somebody has waited for it and has not taken it. `None` is the end.
        self._next: ObjectRef[T] | Literal[False] | None = False

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        item = self._next
        if item is False:
            item = self._items.next(None)
        if not item:
            raise StopIteration
        self._next = False
        return item

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        item = self._next
        if item is False:
            from mobula._waiting import next_item

            item = await next_item(self._items)
        if not item:
            raise StopAsyncIteration
        self._next = False
        return item

    def _is_ready(self, notifier: _mobula.Notifier, number: int) -> bool:
        """Whether the next item is there, or the end. The notifier tells this number if that changes."""
        if self._next is False:
            self._next = self._items.poll_next(notifier, number)
        return self._next is not False

    def completed(self) -> ObjectRef[None]:
        """Return a reference to the end of the stream. It is ready when the generator is over."""
        return self._items.completed()

    def __reduce__(self) -> Any:
        raise TypeError("a stream of references cannot be passed on: pass on the references that it gives")
