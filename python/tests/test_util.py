"""Utilities on top of tasks and actors. If this fails, a program that uses them gets other items, counts or errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mobula as ray
from mobula.util import as_completed, map_unordered
from mobula.util.actor_group import ActorGroup
from mobula.util.iter import LocalIterator, ParallelIteratorWorker, from_actors, from_items, from_iterators, from_range
from mobula.util.metrics import Counter, Gauge, Histogram, collected

pytestmark = pytest.mark.usefixtures("session")


@ray.remote
def double(value: int) -> int:
    return 2 * value


def test_results_as_they_come() -> None:
    refs = [double.remote(i) for i in range(5)]
    assert sorted(as_completed(refs)) == [0, 2, 4, 6, 8]
    assert set(as_completed(refs, chunk_size=2, yield_obj_refs=True)) == set(refs)
    assert sorted(map_unordered(double, range(30), backpressure_size=10)) == [2 * i for i in range(30)]
    with pytest.raises(ValueError):
        list(as_completed(refs, chunk_size=0))
    with pytest.raises(ValueError):
        list(map_unordered(double, range(3), backpressure_size=1))


class Member:
    def __init__(self, value: int, *, step: int = 1) -> None:
        self.value, self.step = value, step

    def add(self, n: int) -> int:
        self.value += n * self.step
        return self.value


def test_a_group_of_actors() -> None:
    group = ActorGroup(Member, num_actors=2, num_cpus_per_actor=0, init_args=(1,), init_kwargs={"step": 10})
    assert ray.get(group.add.remote(1)) == [11, 11]
    assert ray.get(group[0].add.remote(1)) == 21 and len(group) == 2
    with pytest.raises(TypeError, match=r"add\.remote"):
        group.add(1)
    with pytest.raises(AttributeError):
        _ = group.missing
    group.add_actors(1)
    assert ray.get(group.add.remote(0)) == [21, 11, 1]
    group.remove_actors([0, 2])
    assert ray.get(group.add.remote(0)) == [11]
    group.shutdown()
    with pytest.raises(RuntimeError):
        _ = group.add
    with pytest.raises(ValueError):
        ActorGroup(Member, num_actors=0)


def test_iterators_over_shards() -> None:
    numbers = from_range(6)
    assert list(numbers.gather_sync()) == [0, 3, 1, 4, 2, 5]
    assert sorted(numbers.gather_async(num_async=2)) == [0, 1, 2, 3, 4, 5]
    chain = numbers.for_each(lambda x: x + 1).filter(lambda x: x % 2).combine(lambda x: [x, -x])
    assert sorted(chain.gather_async()) == [-5, -3, -1, 1, 3, 5]
    assert numbers.batch(2).take(2) == [[0, 1], [3, 4]]
    assert list(from_items([[1, 2], [3]], num_shards=1).flatten().gather_sync()) == [1, 2, 3]
    assert [sorted(shard) for shard in numbers.shards()] == [[0, 1, 2], [3, 4, 5]]
    assert list(numbers.select_shards([1]).gather_sync()) == [3, 4, 5]
    assert sorted(map(tuple, map(sorted, numbers.repartition(3).shards()))) == [(0, 3), (1, 4), (2, 5)]
    assert sorted(numbers.local_shuffle(3, seed=1).gather_sync()) == [0, 1, 2, 3, 4, 5]
    assert from_iterators([lambda: iter("ab")], repeat=True).take(5) == ["a", "b", "a", "b", "a"]
    assert list(numbers.batch_across_shards()) == [[0, 3], [1, 4], [2, 5]]
    assert len({actor for actor, _ in numbers.gather_async().zip_with_source_actor()}) == 2
    assert sorted(numbers.for_each(lambda x: -x, max_concurrency=2).gather_sync()) == [-5, -4, -3, -2, -1, 0]
    with pytest.raises(TypeError):
        iter(numbers)


def test_iterators_of_this_process() -> None:
    def doubled(items: Iterator[int]) -> Iterator[int]:
        return (2 * item for item in items)

    assert list(from_range(3, num_shards=1).gather_sync().transform(doubled)) == [0, 2, 4]
    letters, digits = from_items("abc", 1).gather_async(), from_range(2, 1).gather_async()
    assert list(letters.union(digits, deterministic=True)) == ["a", 0, "b", 1, "c"]
    one, two = from_range(4, num_shards=1).gather_sync().duplicate(2)
    assert (one.take(4), two.take(4)) == ([0, 1, 2, 3], [0, 1, 2, 3])

    def count(value: int) -> int:
        metrics = LocalIterator.get_metrics()
        metrics.counters["seen"] += value
        return metrics.counters["seen"]

    assert from_range(4, num_shards=1).gather_sync().for_each(count).take(4) == [0, 1, 3, 6]
    with pytest.raises(ValueError):
        LocalIterator.get_metrics()


@ray.remote(num_cpus=0)
class Shard(ParallelIteratorWorker):
    def __init__(self, data: list[Any]) -> None:
        super().__init__(data, False)


def test_actors_of_a_program_are_shards() -> None:
    assert list(from_actors([Shard.remote([1, 2]), Shard.remote([3, 4])]).gather_sync()) == [1, 3, 2, 4]


def test_metrics_are_collected() -> None:
    calls = Counter("calls_of_the_test", tag_keys=("kind",))
    calls.inc(tags={"kind": "a"})
    Counter("calls_of_the_test", tag_keys=("kind",)).inc(2.5, tags={"kind": "a"})
    Gauge("level_of_the_test").set(7)
    times = Histogram("times_of_the_test", boundaries=[1, 10])
    for value in (0.5, 1, 5, 100):
        times.observe(value)
    found = collected()
    assert found["calls_of_the_test"] == {(("kind", "a"),): 3.5}
    assert found["level_of_the_test"] == {(): 7.0}
    assert found["times_of_the_test"] == {(): [2, 1, 1]}


def test_metrics_of_odd_tags_are_kept() -> None:
    counter = Counter("odd_tags_of_the_test", tag_keys=("a-b",))
    counter.inc(2, tags={"a-b": 'x "y"'})
    assert collected()["odd_tags_of_the_test"] == {(("a-b", 'x "y"'),): 2.0}


def test_marks_and_spans_are_recorded() -> None:
    ray.mark("epoch", 3)
    span = ray.span("outer")
    with span, span:
        ray.mark("inside")
    with pytest.raises(ZeroDivisionError), ray.span("fails"):
        raise ZeroDivisionError


def test_the_error_of_what_cannot_be_pickled_names_the_part() -> None:
    import threading

    from mobula.cloudpickle import dumps_debug, loads

    lock = threading.Lock()
    assert loads(dumps_debug([1, 2])) == [1, 2]
    with pytest.raises(TypeError, match=r"FailTuple\(lock "):
        dumps_debug(lambda: lock)


ATTRIBUTES = """
import mobula as ray

assert ray.util.iter.from_items([1, 2], num_shards=1).take(2) == [1, 2]
assert ray.util.queue.Queue and ray.util.queue.Empty
assert ray.util.metrics.Counter and ray.util.state.list_tasks
assert ray.util.multiprocessing.Pool and ray.multiprocessing.Pool
assert ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
assert ray.util.joblib.register_ray and ray.joblib.register
assert ray.util.accelerators.NVIDIA_A100 == "A100"
assert ray.util.actor_pool.ActorPool is ray.util.ActorPool
assert ray.util.actor_group.ActorGroup and ray.util.check_serialize and ray.util.helpers
assert callable(ray.util.placement_group)
assert ray.futures.Executor and ray.compat
"""


def test_modules_are_attributes_without_an_import() -> None:
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", ATTRIBUTES], check=True, timeout=120)
    with pytest.raises(AttributeError, match="nonsense"):
        ray.util.nonsense  # noqa: B018
