"""Iterators over data that actors have in shards.

::

    from mobula.util.iter import from_range

    squares = from_range(10, num_shards=2).for_each(lambda x: x * x)
    assert sorted(squares.gather_async()) == [x * x for x in range(10)]
"""

from __future__ import annotations

import collections
import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import mobula
from mobula import ActorHandle

# The pieces of a chain: each takes an iterator, and returns another one.
_Transform = Callable[["LocalIterator"], "LocalIterator"]

# How long a union waits for one of its iterators before it looks at the next one.
_LOOK_S = 0.01


class _NotReady:
    """What an iterator gives that would wait longer than it may."""


class MetricsContext:
    """What the functions of a chain count: see ``LocalIterator.get_metrics``."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = collections.defaultdict(int)
        self.timers: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        # The actor that the item is of.
        self.current_actor: ActorHandle | None = None


class SharedMetrics:
    """The metrics of a chain. The iterators of a union have those of the union."""

    def __init__(self) -> None:
        self.metrics = MetricsContext()
        self.parent: SharedMetrics | None = None

    def get(self) -> MetricsContext:
        """Return the metrics."""
        return self.metrics if self.parent is None else self.parent.get()


_running = threading.local()


class LocalIterator:
    """An iterator of this process, which may be passed on before it has begun."""

    def __init__(
        self,
        base: Callable[[float | None], Iterator[Any]],
        shared_metrics: SharedMetrics,
        transforms: Sequence[Callable[[Iterator[Any]], Iterator[Any]]] = (),
        timeout: float | None = None,
        name: str = "",
    ) -> None:
        self._base, self.shared_metrics, self._transforms = base, shared_metrics, tuple(transforms)
        self._timeout, self.name = timeout, name
        self._built: Iterator[Any] | None = None

    @staticmethod
    def get_metrics() -> MetricsContext:
        """Return the metrics of the chain whose function calls this.

        Raises:
            ValueError: No function of a chain does.
        """
        found: MetricsContext | None = getattr(_running, "metrics", None)
        if found is None:
            raise ValueError("Cannot access context outside an iterator.")
        return found

    def __iter__(self) -> Iterator[Any]:
        return (item for item in self._items() if not isinstance(item, _NotReady))

    def __next__(self) -> Any:
        return next(iter(self))

    def _items(self) -> Iterator[Any]:
        if self._built is None:
            self._built = self._base(self._timeout)
            for transform in self._transforms:
                self._built = transform(self._built)
        return self._built

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def _with(self, transform: Callable[[Iterator[Any]], Iterator[Any]], name: str) -> LocalIterator:
        transforms = (*self._transforms, transform)
        return LocalIterator(self._base, self.shared_metrics, transforms, self._timeout, f"{self.name}{name}")

    def _called(self, fn: Callable[[Any], Any], item: Any) -> Any:
        before = getattr(_running, "metrics", None)
        _running.metrics = self.shared_metrics.get()
        try:
            return fn(item)
        finally:
            _running.metrics = before

    def transform(self, fn: Callable[[Iterator[Any]], Iterator[Any]]) -> LocalIterator:
        """Pass the items through a generator function."""
        return self._with(fn, ".transform()")

    def for_each(
        self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> LocalIterator:
        """Call a function with each item; with ``max_concurrency`` above 1 in so many remote calls at once."""

        def here(items: Iterator[Any]) -> Iterator[Any]:
            return (item if isinstance(item, _NotReady) else self._called(fn, item) for item in items)

        def remote(items: Iterator[Any]) -> Iterator[Any]:
            call = mobula.remote(fn).options(**(resources or {}))
            under_way: list[Any] = []
            for item in items:
                if isinstance(item, _NotReady):
                    yield item
                    continue
                under_way.append(call.remote(item))
                if len(under_way) >= max_concurrency:
                    ready, under_way = mobula.wait(under_way)
                    yield from mobula.get(ready)
            while under_way:
                ready, under_way = mobula.wait(under_way)
                yield from mobula.get(ready)

        if max_concurrency < 0:
            raise ValueError("max_concurrency must be non-negative.")
        return self._with(here if max_concurrency == 1 else remote, ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> LocalIterator:
        """Keep the items for which a function is true."""

        def kept(items: Iterator[Any]) -> Iterator[Any]:
            return (item for item in items if isinstance(item, _NotReady) or self._called(fn, item))

        return self._with(kept, ".filter()")

    def batch(self, n: int) -> LocalIterator:
        """Give lists of so many items."""

        def batches(items: Iterator[Any]) -> Iterator[Any]:
            batch: list[Any] = []
            for item in items:
                if isinstance(item, _NotReady):
                    yield item
                    continue
                batch.append(item)
                if len(batch) >= n:
                    yield batch
                    batch = []
            if batch:
                yield batch

        return self._with(batches, f".batch({n})")

    def flatten(self) -> LocalIterator:
        """Give the items of items that are lists."""

        def flat(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                if isinstance(item, _NotReady):
                    yield item
                else:
                    yield from item

        return self._with(flat, ".flatten()")

    def combine(self, fn: Callable[[Any], Iterable[Any]]) -> LocalIterator:
        """Call a function with each item, and give the items that it returns."""
        found = self.for_each(fn).flatten()
        found.name = f"{self.name}.combine()"
        return found

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator:
        """Give the items in another order: each is one of so many that come next."""

        def shuffled(items: Iterator[Any]) -> Iterator[Any]:
            order, buffer = random.Random(seed), list[Any]()
            for item in items:
                if isinstance(item, _NotReady):
                    yield item
                    continue
                buffer.append(item)
                if len(buffer) >= shuffle_buffer_size:
                    yield buffer.pop(order.randrange(len(buffer)))
            while buffer:
                yield buffer.pop(order.randrange(len(buffer)))

        return self._with(shuffled, f".shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})")

    def zip_with_source_actor(self) -> LocalIterator:
        """Give pairs of the actor that has an item, and the item."""

        def zipped(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                is_item = not isinstance(item, _NotReady)
                yield (self.shared_metrics.get().current_actor, item) if is_item else item

        return self._with(zipped, ".zip_with_source_actor()")

    def take(self, n: int) -> list[Any]:
        """Return the next items, at most so many."""
        return list(itertools.islice(iter(self), n))

    def show(self, n: int = 20) -> None:
        """Print the next items, at most so many."""
        for item in self.take(n):
            print(item)

    def duplicate(self, n: int) -> list[LocalIterator]:
        """Return so many iterators over the same items, none of which runs far ahead."""
        if n < 2:
            raise ValueError("Number of copies must be >= 2")
        queues = [collections.deque[Any]() for _ in range(n)]

        def copy(place: int) -> Callable[[float | None], Iterator[Any]]:
            def items(timeout: float | None) -> Iterator[Any]:
                mine = queues[place]
                while True:
                    if len(mine) < max(map(len, queues)) and timeout is not None:
                        yield _NotReady()
                        continue
                    if not mine:
                        item = next(self._items(), None)
                        if item is None:
                            return
                        for queue in queues:
                            queue.append(item)
                    yield mine.popleft()

            return items

        return [
            LocalIterator(copy(place), self.shared_metrics, (), None, f"{self.name}.duplicate[{place}]")
            for place in range(n)
        ]

    def union(
        self, *others: LocalIterator, deterministic: bool = False, round_robin_weights: list[Any] | None = None
    ) -> LocalIterator:
        """Give the items of several iterators, one of each in turn, unless one has none at the moment.

        With ``deterministic`` it waits for that one. ``round_robin_weights`` says how many of each there are in a turn.
        """
        for other in others:
            if not isinstance(other, LocalIterator):
                raise ValueError(f"other must be of type LocalIterator, got {type(other)}")
        parents = [self, *others]
        weights = round_robin_weights or [1] * len(parents)
        if len(weights) != len(parents):
            raise ValueError("Length of round robin weights must match number of iterators total.")
        timeout = None if deterministic else _LOOK_S
        metrics = SharedMetrics()
        active = []
        for parent in parents:
            name, transforms = parent.name, parent._transforms
            active.append(LocalIterator(parent._base, parent.shared_metrics, transforms, timeout, name))
            parent.shared_metrics.parent = metrics

        def items(timeout: float | None) -> Iterator[Any]:
            left = [(100 if weight == "*" else weight, it._items()) for weight, it in zip(weights, active, strict=True)]
            while left:
                for pair in list(left):
                    weight, found = pair
                    for item in itertools.islice(found, weight):
                        if not isinstance(item, _NotReady) or timeout is not None:
                            yield item
                        if isinstance(item, _NotReady):
                            break
                        weight -= 1
                    else:
                        if weight > 0:
                            left.remove(pair)

        name = f"LocalUnion[{', '.join(map(str, parents))}]"
        return LocalIterator(items, metrics, (), None, name)


class ParallelIteratorWorker:
    """The base of actors that have a shard: an iterable, or a function that returns one."""

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        self._source, self._repeat = item_generator, repeat
        self._local: Iterator[Any] | None = None
        self._slices: dict[Any, Iterator[Any]] = {}

    def _new(self, transforms: Sequence[_Transform]) -> Iterator[Any]:
        def items(_: float | None) -> Iterator[Any]:
            while True:
                source: Any = self._source
                yield from source() if callable(self._source) else source
                if not self._repeat:
                    return

        found = LocalIterator(items, SharedMetrics())
        for transform in transforms:
            found = transform(found)
        return iter(found)

    def par_iter_init(self, transforms: Sequence[_Transform]) -> None:
        """Begin to iterate."""
        self._local = self._new(transforms)

    def par_iter_next(self, batch_ms: int = 0) -> tuple[list[Any], bool]:
        """Return the next items, those of so many milliseconds, and whether there are no more."""
        if self._local is None:
            raise RuntimeError("must call par_iter_init()")
        return _next_batch(self._local, batch_ms)

    def par_iter_slice(
        self, transforms: Sequence[_Transform], key: Any, step: int, start: int
    ) -> tuple[list[Any], bool]:
        """Return the next item of every ``step`` items. ``key`` is that of the one who reads."""
        if key not in self._slices:
            self._slices[key] = itertools.islice(self._new(transforms), start, None, step)
        return _next_batch(self._slices[key], 0)


def _next_batch(items: Iterator[Any], batch_ms: int) -> tuple[list[Any], bool]:
    import time

    end, found = time.monotonic() + batch_ms / 1000, list[Any]()
    for item in items:
        found.append(item)
        if time.monotonic() >= end:
            return found, False
    return found, True


class ParallelIterator:
    """An iterator over shards. Its functions run in the actors that have them; ``gather_…`` brings the items here."""

    def __init__(self, shards: list[tuple[ActorHandle, tuple[_Transform, ...]]], name: str) -> None:
        self._shards, self.name = shards, name

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "You must use it.gather_sync() or it.gather_async() to iterate over the results of a ParallelIterator."
        )

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def _with(self, transform: _Transform, name: str) -> ParallelIterator:
        shards = [(actor, (*transforms, transform)) for actor, transforms in self._shards]
        return ParallelIterator(shards, f"{self.name}{name}")

    def transform(self, fn: Callable[[Iterator[Any]], Iterator[Any]]) -> ParallelIterator:
        """Pass the items of each shard through a generator function."""
        return self._with(lambda it: it.transform(fn), ".transform()")

    def for_each(
        self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: dict[str, Any] | None = None
    ) -> ParallelIterator:
        """Call a function with each item."""
        return self._with(lambda it: it.for_each(fn, max_concurrency, resources), ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> ParallelIterator:
        """Keep the items for which a function is true."""
        return self._with(lambda it: it.filter(fn), ".filter()")

    def batch(self, n: int) -> ParallelIterator:
        """Give lists of so many items."""
        return self._with(lambda it: it.batch(n), f".batch({n})")

    def flatten(self) -> ParallelIterator:
        """Give the items of items that are lists."""
        return self._with(lambda it: it.flatten(), ".flatten()")

    def combine(self, fn: Callable[[Any], Iterable[Any]]) -> ParallelIterator:
        """Call a function with each item, and give the items that it returns."""
        return self._with(lambda it: it.combine(fn), ".combine()")

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator:
        """Give the items of each shard in another order."""
        name = f".local_shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})"
        return self._with(lambda it: it.shuffle(shuffle_buffer_size, seed), name)

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator:
        """Spread the items over another number of shards. Each item is made again for each of them."""
        import uuid

        def part(place: int) -> Callable[[], Iterator[Any]]:
            def items() -> Iterator[Any]:
                key, left = uuid.uuid4().hex, list(self._shards)
                while left:
                    for shard in list(left):
                        actor, transforms = shard
                        call = actor.par_iter_slice.remote(transforms, key, num_partitions, place)
                        found, is_over = mobula.get(call)
                        yield from found
                        if is_over:
                            left.remove(shard)

            return items

        parts = [part(place) for place in range(num_partitions)]
        return from_iterators(parts, name=f"{self.name}.repartition[num_partitions={num_partitions}]")

    def gather_sync(self) -> LocalIterator:
        """Give the items of all shards, one of each in turn."""
        found = self.batch_across_shards().flatten()
        found.name = f"{self}.gather_sync()"
        return found

    def batch_across_shards(self) -> LocalIterator:
        """Give lists of the next items of all shards."""

        def batches(_: float | None) -> Iterator[Any]:
            left = self._begun()
            while left:
                results = mobula.get([actor.par_iter_next.remote() for actor in left])
                batch = [item for items, _ in results for item in items]
                if batch:
                    yield batch
                left = [actor for actor, (_, is_over) in zip(left, results, strict=True) if not is_over]

        return LocalIterator(batches, SharedMetrics(), name=f"{self}.batch_across_shards()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """Give the items of all shards as they come."""
        if num_async < 1:
            raise ValueError("queue depth must be positive")
        if batch_ms < 0:
            raise ValueError("batch time must be positive")
        metrics = SharedMetrics()

        def items(timeout: float | None) -> Iterator[Any]:
            under_way = {
                actor.par_iter_next.remote(batch_ms): actor for actor in self._begun() for _ in range(num_async)
            }
            while under_way:
                ready, _ = mobula.wait(list(under_way), timeout=timeout)
                if not ready:
                    yield _NotReady()
                    continue
                actor = under_way.pop(ready[0])
                found, is_over = mobula.get(ready[0])
                if not is_over:
                    under_way[actor.par_iter_next.remote(batch_ms)] = actor
                for item in found:
                    metrics.get().current_actor = actor
                    yield item

        return LocalIterator(items, metrics, name=f"{self}.gather_async()")

    def _begun(self) -> list[ActorHandle]:
        mobula.get([actor.par_iter_init.remote(transforms) for actor, transforms in self._shards])
        return [actor for actor, _ in self._shards]

    def take(self, n: int) -> list[Any]:
        """Return the first items, at most so many."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Print the first items, at most so many."""
        self.gather_sync().show(n)

    def union(self, other: ParallelIterator) -> ParallelIterator:
        """Return an iterator over the shards of both."""
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be of type ParallelIterator, got {type(other)}")
        return ParallelIterator([*self._shards, *other._shards], f"ParallelUnion[{self}, {other}]")

    def select_shards(self, shards_to_keep: list[int]) -> ParallelIterator:
        """Return an iterator over some of the shards."""
        kept = [self._shards[place] for place in shards_to_keep]
        return ParallelIterator(kept, f"{self.name}.select_shards({len(kept)} total)")

    def num_shards(self) -> int:
        """Return the number of shards."""
        return len(self._shards)

    def shards(self) -> list[LocalIterator]:
        """Return an iterator for each shard."""
        return [self.get_shard(place) for place in range(self.num_shards())]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """Return an iterator over the items of a shard."""
        actor, transforms = self._shards[shard_index]

        def items(_: float | None) -> Iterator[Any]:
            mobula.get(actor.par_iter_init.remote(transforms))
            under_way = collections.deque(actor.par_iter_next.remote(batch_ms) for _ in range(num_async))
            while under_way:
                found, is_over = mobula.get(under_way.popleft())
                yield from found
                if not is_over:
                    under_way.append(actor.par_iter_next.remote(batch_ms))

        return LocalIterator(items, SharedMetrics(), name=f"{self.name}.shard[{shard_index}]")


def from_items(items: Sequence[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """Return an iterator over items that are spread over so many actors."""
    shards = [list(items[place::num_shards]) for place in range(num_shards)]
    kind = type(items[0]).__name__ if items else "None"
    repeated = ", repeat=True" if repeat else ""
    return from_iterators(shards, repeat, f"from_items[{kind}, {len(items)}, shards={num_shards}{repeated}]")


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """Return an iterator over the numbers below ``n``, of which so many actors have a part each."""
    size = n // num_shards
    ends = [*(size * place for place in range(num_shards)), n]
    shards = [range(begin, end) for begin, end in itertools.pairwise(ends)]
    repeated = ", repeat=True" if repeat else ""
    return from_iterators(shards, repeat, f"from_range[{n}, shards={num_shards}{repeated}]")


def from_iterators(generators: Sequence[Any], repeat: bool = False, name: str | None = None) -> ParallelIterator:
    """Return an iterator over several iterables, or functions that return one, each of which an actor has."""
    worker = mobula.remote(ParallelIteratorWorker)
    repeated = ", repeat=True" if repeat else ""
    name = name or f"from_iterators[shards={len(generators)}{repeated}]"
    return from_actors([worker.remote(source, repeat) for source in generators], name)


def from_actors(actors: Sequence[ActorHandle], name: str | None = None) -> ParallelIterator:
    """Return an iterator over the shards of actors whose class is derived from ``ParallelIteratorWorker``."""
    return ParallelIterator([(actor, ()) for actor in actors], name or f"from_actors[shards={len(actors)}]")


__all__ = [
    "LocalIterator",
    "MetricsContext",
    "ParallelIterator",
    "ParallelIteratorWorker",
    "from_actors",
    "from_items",
    "from_iterators",
    "from_range",
]
