"""Actors. If this fails, state is lost or shared where it should not be."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

import mobula as ray
from mobula.exceptions import ActorDiedError, ActorUnavailableError, RayActorError

pytestmark = pytest.mark.usefixtures("session")


@ray.remote
class Counter:
    """The seed's counter."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def increment(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def fail(self) -> None:
        raise KeyError("method")

    @ray.method(num_returns=2)
    def two(self) -> tuple[int, int]:
        return self.value, -self.value

    def numbers(self, n: int) -> Any:
        yield from range(n)

    def pid(self) -> int:
        return os.getpid()


def test_the_seed() -> None:
    counters = [Counter.remote() for _ in range(10)]
    assert ray.get([c.increment.remote() for c in counters]) == [1] * 10
    assert ray.get([counters[0].increment.remote() for _ in range(5)]) == [2, 3, 4, 5, 6]


def test_the_seed_map_reduce() -> None:
    @ray.remote
    class Mapper:
        def __init__(self, title_stream: list[str]) -> None:
            self.stream, self.read, self.counts = title_stream, -1, dict[str, int]()

        def get_range(self, article_index: int, keys: tuple[str, str]) -> list[tuple[str, int]]:
            while self.read < article_index:
                self.read += 1
                for word in self.stream[self.read].split():
                    self.counts[word] = self.counts.get(word, 0) + 1
            return [(word, count) for word, count in self.counts.items() if keys[0] <= word[0] <= keys[1]]

    @ray.remote
    class Reducer:
        def __init__(self, keys: tuple[str, str], *mappers: Any) -> None:
            self.keys, self.mappers = keys, mappers

        def next_reduce_result(self, article_index: int) -> dict[str, int]:
            counts: dict[str, int] = {}
            for part in ray.get([m.get_range.remote(article_index, self.keys) for m in self.mappers]):
                for word, count in part:
                    counts[word] = counts.get(word, 0) + count
            return counts

    mappers = [Mapper.remote(["a b a", "z"]), Mapper.remote(["b c", "a z"])]
    reducers = [Reducer.remote(keys, *mappers) for keys in [("a", "m"), ("n", "z")]]
    results = [ray.get([r.next_reduce_result.remote(index) for r in reducers]) for index in range(2)]
    assert results == [[{"a": 2, "b": 2, "c": 1}, {}], [{"a": 3, "b": 2, "c": 1}, {"z": 2}]]


def test_calls_of_one_caller_keep_their_order() -> None:
    counter = Counter.remote()
    assert ray.get([counter.increment.remote() for _ in range(1000)]) == list(range(1, 1001))


def test_results_and_errors() -> None:
    counter = Counter.remote(start=5)
    one, other = counter.two.remote()
    assert ray.get([one, other]) == [5, -5]
    assert ray.get(counter.two.options(num_returns=1).remote()) == (5, -5)
    assert [ray.get(ref) for ref in counter.numbers.remote(5)] == list(range(5))
    with pytest.raises(KeyError):
        ray.get(counter.fail.remote())
    # An error of a method does not end the actor.
    assert ray.get(counter.increment.remote()) == 6


def test_mistakes_are_told_at_once() -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        counter.missing.remote()
    with pytest.raises(TypeError):
        counter.increment.remote(1, 2, 3)
    with pytest.raises(TypeError):
        Counter.remote(1, 2)
    with pytest.raises(TypeError, match=r"Counter\.remote\(\)"):
        Counter()
    with pytest.raises(TypeError, match=r"increment\.remote\(\)"):
        counter.increment()
    with pytest.raises(TypeError):

        class Derived(Counter):  # type: ignore[misc, valid-type]
            pass

    with pytest.raises(NotImplementedError, match="one call at a time"):

        @ray.remote
        class Async:
            async def method(self) -> None: ...


def test_a_constructor_that_fails() -> None:
    @ray.remote
    class Fails:
        def __init__(self) -> None:
            raise ValueError("no start")

        def method(self) -> None: ...

    with pytest.raises(RayActorError, match="no start"):
        ray.get(Fails.remote().method.remote())


def test_names() -> None:
    counter = Counter.options(name="counter").remote()
    ray.get(counter.increment.remote())
    assert ray.get(ray.get_actor("counter").increment.remote()) == 2
    assert Counter.options(name="counter", get_if_exists=True).remote() == counter
    with pytest.raises(ValueError):
        Counter.options(name="counter").remote()
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("nobody")
    ray.kill(counter)
    with pytest.raises(ValueError):
        ray.get_actor("counter")


def test_handles_travel() -> None:
    @ray.remote
    def increment(counter: Any, times: int) -> list[int]:
        return ray.get([counter.increment.remote() for _ in range(times)])

    @ray.remote
    class Holder:
        def __init__(self, handles: dict[str, Any]) -> None:
            self.counter = handles["counter"]

        def increment(self) -> int:
            return ray.get(self.counter.increment.remote())

    counter = Counter.remote()
    assert ray.get(increment.remote(counter, 3)) == [1, 2, 3]
    assert ray.get(Holder.remote({"counter": counter}).increment.remote()) == 4
    assert ray.get(ray.put([counter]))[0] == counter


def test_large_arguments_are_not_copied() -> None:
    @ray.remote
    class Keeper:
        def keep(self, array: Any) -> tuple[bool, bool, int]:
            self.array = array
            return array.flags.writeable, array.flags.owndata, int(array.sum())

        def sum(self) -> int:
            return int(self.array.sum())

    keeper, ref = Keeper.remote(), ray.put(np.ones(1_000_000, dtype=np.int64))
    assert ray.get(keeper.keep.remote(ref)) == (False, False, 1_000_000)
    del ref
    assert ray.get(keeper.sum.remote()) == 1_000_000


def test_kill() -> None:
    counter = Counter.remote()
    ray.get(counter.increment.remote())
    ray.kill(counter)
    with pytest.raises(ActorDiedError):
        ray.get(counter.increment.remote())
    with pytest.raises(ValueError):
        ray.kill(1)


def test_an_actor_that_is_killed_from_outside() -> None:
    counter = Counter.remote()
    os.kill(ray.get(counter.pid.remote()), signal.SIGKILL)
    with pytest.raises(ActorDiedError, match="SIGKILL"):
        ray.get(counter.increment.remote())


def test_restarts() -> None:
    counter = Counter.options(max_restarts=1, max_task_retries=0).remote(100)
    first = ray.get(counter.pid.remote())
    os.kill(first, signal.SIGKILL)
    value = None
    while value is None:
        try:
            value = ray.get(counter.increment.remote())
        except ActorUnavailableError:
            pass
    assert value == 101 and ray.get(counter.pid.remote()) != first


def test_exit_actor() -> None:
    @ray.remote
    class Leaves:
        def leave(self) -> None:
            ray.exit_actor()

    leaves = Leaves.remote()
    with pytest.raises(ActorDiedError):
        ray.get(leaves.leave.remote())


def test_an_actor_ends_with_its_last_handle() -> None:
    counter = Counter.remote()
    pid = ray.get(counter.pid.remote())
    del counter
    descriptor = os.pidfd_open(pid)
    import select

    assert select.select([descriptor], [], [], 60)[0]
    os.close(descriptor)


def test_actor_pool() -> None:
    @ray.remote
    class Doubler:
        def double(self, x: int) -> int:
            return 2 * x

    pool = ray.util.ActorPool([Doubler.remote() for _ in range(2)])
    assert list(pool.map(lambda a, v: a.double.remote(v), range(20))) == [2 * i for i in range(20)]
    assert sorted(pool.map_unordered(lambda a, v: a.double.remote(v), range(20))) == [2 * i for i in range(20)]
