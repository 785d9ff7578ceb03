"""Streams: functions whose results come while they run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from mobula import _mobula
from mobula._mobula import ObjectRef

T = TypeVar("T")

# The most results that have come and that nobody has taken. The function waits when there are so many.
IN_FLIGHT_MAX = 128


class ObjectRefGenerator(Generic[T]):
    """The references to the results of a generator, in their order: an iterator, and an asynchronous one.

    Dropping it ends the generator. ::

        import mobula as ray

        @ray.remote
        def count(end):
            for number in range(end):
                yield number

        for ref in count.remote(3):  # each item is there before the function has ended
            print(ray.get(ref))
    """

    def __init__(self, items: _mobula.Items) -> None:
        self._items = items
        self._is_finished = False

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        item = self._items.next(None)
        if not item:
            self._is_finished = True
            raise StopIteration
        return item

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        from mobula._waiting import next_item

        item: ObjectRef[T] | None = await next_item(self._items)
        if item is None:
            self._is_finished = True
            raise StopAsyncIteration
        return item

    def _is_ready(self, notifier: _mobula.Notifier, number: int) -> bool:
        """Whether the next item is there, or the end. The notifier tells this number if that changes."""
        return self._items.poll_there(notifier, number)

    def is_finished(self) -> bool:
        """Whether the end has come: the last item was taken, and another one was asked for."""
        return self._is_finished

    def next_ready(self) -> bool:
        """Whether the next item, or the end, is there. After the end, it is false."""
        from mobula._waiting import wait_for_any

        return not self._is_finished and bool(wait_for_any([self], 1, 0)[0])

    def completed(self) -> ObjectRef[None]:
        """Return a reference to the end of the stream. It is ready when the generator is over."""
        return self._items.completed()

    def __reduce__(self) -> Any:
        raise TypeError("a stream of references cannot be passed on: pass on the references that it gives")


class DynamicObjectRefGenerator(ObjectRefGenerator[T]):
    """The references to the results of a call with ``num_returns="dynamic"``.

    It can be iterated more than once, and it keeps the results. It can be passed on: that waits for the last result,
    and the list of the references is what arrives.
    """

    def __init__(self, items: _mobula.Items) -> None:
        super().__init__(items)
        self._refs: list[ObjectRef[T]] = []

    def __next__(self) -> ObjectRef[T]:
        self._refs.append(super().__next__())
        return self._refs[-1]

    async def __anext__(self) -> ObjectRef[T]:
        self._refs.append(await super().__anext__())
        return self._refs[-1]

    def __iter__(self) -> Any:
        # The iterators of one generator take its results in turn: each gives all of them.
        for place in itertools.count():
            if place == len(self._refs):
                try:
                    next(self)
                except StopIteration:
                    return
            yield self._refs[place]

    def __len__(self) -> int:
        """Wait for the last result, and return the number of results."""
        return sum(1 for _ in self)

    def __reduce__(self) -> Any:
        return (list, (list(iter(self)),))


def dynamic(stream: Any) -> Any:
    """Return a stream as one that can be passed on."""
    return stream if isinstance(stream, DynamicObjectRefGenerator) else DynamicObjectRefGenerator(stream._items)


def of_one_generator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that fails if the function returns no generator."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not isinstance(result, Iterator):
            raise TypeError(f"num_returns='dynamic' needs a generator, and {type(result)} was returned")
        return result

    return call
