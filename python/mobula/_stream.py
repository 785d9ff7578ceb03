"""Streams: functions whose results come while they run."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

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

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        item = self._items.next(None)
        if not item:
            raise StopIteration
        return item

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        from mobula._waiting import next_item

        item = await next_item(self._items)
        if not item:
            raise StopAsyncIteration
        return item

    def completed(self) -> ObjectRef[None]:
        """Return a reference to the end of the stream. It is ready when the generator is over."""
        return self._items.completed()

    def __reduce__(self) -> Any:
        raise TypeError("a stream of references cannot be passed on: pass on the references that it gives")
