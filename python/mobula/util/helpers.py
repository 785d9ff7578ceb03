"""Results as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import mobula
from mobula import ObjectRef


def as_completed(refs: Sequence[ObjectRef[Any]], chunk_size: int = 10, yield_obj_refs: bool = False) -> Iterator[Any]:
    """Give the values of references, or the references themselves, as they become ready.

    ::

        import mobula as ray
        from mobula.util import as_completed

        square = ray.remote(lambda x: x * x)
        assert sorted(as_completed([square.remote(x) for x in range(4)])) == [0, 1, 4, 9]

    Args:
        refs: The references.
        chunk_size: How many to wait for at once, where so many are left.
        yield_obj_refs: Give references in place of values.
    """
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    left = list(refs)
    while left:
        ready, left = mobula.wait(left, num_returns=min(chunk_size, len(left)))
        yield from ready if yield_obj_refs else mobula.get(ready)


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
) -> Iterator[Any]:
    """Call a remote function with each item, and give the results as they become ready.

    ::

        import mobula as ray
        from mobula.util import map_unordered

        square = ray.remote(lambda x: x * x)
        assert sum(map_unordered(square, range(100))) == 328_350

    Args:
        fn: A remote function.
        items: Its arguments.
        backpressure_size: How many calls may be under way; ``None``: all of them.
        chunk_size: How many to wait for at once.
        yield_obj_refs: Give references in place of values.
    """
    if backpressure_size is None:
        backpressure_size = 1 << 62
    elif backpressure_size < chunk_size:
        raise ValueError("backpressure_size must be larger equal than chunk_size")
    call: Callable[[Any], ObjectRef[Any]] = fn.remote if hasattr(fn, "remote") else mobula.remote(fn).remote
    left: list[ObjectRef[Any]] = []
    for item in items:
        left.append(call(item))
        if len(left) >= backpressure_size:
            ready, left = mobula.wait(left, num_returns=min(chunk_size, len(left)))
            yield from ready if yield_obj_refs else mobula.get(ready)
    yield from as_completed(left, chunk_size, yield_obj_refs)


__all__ = ["as_completed", "map_unordered"]
