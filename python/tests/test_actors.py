"""Actors. If this fails, state is lost or shared where it should not be."""

from __future__ import annotations

import gc
import os
import signal
import time
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
    with pytest.raises(ActorDiedError, match=r"SIGKILL.*`mobula postmortem \d+`"):
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


@ray.remote
class Signal:
    """Lets those that wait go on when somebody says so."""

    def __init__(self) -> None:
        import asyncio

        self.event = asyncio.Event()
        self.waiting = 0

    async def wait(self) -> str:
        self.waiting += 1
        await self.event.wait()
        return "sent"

    async def send(self) -> int:
        self.event.set()
        return self.waiting

    async def count(self) -> int:
        return self.waiting

    async def numbers(self, n: int) -> Any:
        for i in range(n):
            yield i

    async def fails(self) -> None:
        raise KeyError("async")

    def plain(self) -> str:
        return "plain"

    async def cancelled(self) -> None:
        import asyncio

        try:
            self.waiting += 1
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.event.set()
            raise


def test_async_methods_run_side_by_side() -> None:
    signal_actor = Signal.remote()
    waiting = [signal_actor.wait.remote() for _ in range(100)]
    assert ray.wait(waiting, timeout=0.05)[0] == []
    assert ray.get(signal_actor.send.remote(), timeout=60) == 100
    assert ray.get(waiting, timeout=60) == ["sent"] * 100
    assert ray.get(signal_actor.plain.remote()) == "plain"
    assert [ray.get(ref) for ref in signal_actor.numbers.remote(5)] == list(range(5))
    with pytest.raises(KeyError):
        ray.get(signal_actor.fails.remote())


def test_a_cancelled_async_method_stops() -> None:
    signal_actor = Signal.remote()
    ref = signal_actor.cancelled.remote()
    while ray.get(signal_actor.count.remote()) == 0:
        pass
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref, timeout=60)
    # Its coroutine has ended, not only its caller's wait.
    assert ray.get(signal_actor.wait.remote(), timeout=60) == "sent"


def test_async_methods_begin_in_order() -> None:
    @ray.remote
    class Log:
        def __init__(self) -> None:
            self.seen: list[int] = []

        async def add(self, i: int) -> None:
            self.seen.append(i)

        async def all(self) -> list[int]:
            return self.seen

    log = Log.remote()
    for i in range(1000):
        log.add.remote(i)
    assert ray.get(log.all.remote(), timeout=60) == list(range(1000))


def test_threads_of_an_actor() -> None:
    @ray.remote(max_concurrency=3)
    class Threads:
        def __init__(self) -> None:
            import threading

            self.barrier = threading.Barrier(3)

        def meet(self) -> int:
            return self.barrier.wait(timeout=60)

    threads = Threads.remote()
    assert sorted(ray.get([threads.meet.remote() for _ in range(3)], timeout=120)) == [0, 1, 2]


def test_concurrency_groups() -> None:
    @ray.remote(concurrency_groups={"io": 2, "compute": 1})
    class Groups:
        def __init__(self) -> None:
            import threading

            self.barrier, self.event = threading.Barrier(2), threading.Event()

        @ray.method(concurrency_group="io")
        def meet(self) -> int:
            return self.barrier.wait(timeout=60)

        @ray.method(concurrency_group="compute")
        def wait(self) -> bool:
            return self.event.wait(timeout=60)

        def send(self) -> None:
            self.event.set()

        def thread(self) -> str:
            import threading

            return threading.current_thread().name

    groups = Groups.remote()
    waiting = groups.wait.remote()
    assert sorted(ray.get([groups.meet.remote() for _ in range(2)], timeout=120)) == [0, 1]
    ray.get(groups.send.remote())
    assert ray.get(waiting, timeout=120) is True
    assert "io" in ray.get(groups.thread.options(concurrency_group="io").remote())
    with pytest.raises(ValueError, match="no concurrency group 'none'"):
        ray.get(groups.thread.options(concurrency_group="none").remote())


def test_a_group_that_an_actor_does_not_have() -> None:
    counter = Counter.remote()
    with pytest.raises(ValueError, match="no concurrency group"):
        ray.get(counter.increment.options(concurrency_group="io").remote())
    assert ray.get(counter.increment.remote()) == 1


def test_an_async_actor_that_is_killed() -> None:
    signal_actor = Signal.remote()
    waiting = [signal_actor.wait.remote() for _ in range(10)]
    while ray.get(signal_actor.count.remote()) < 10:
        pass
    ray.kill(signal_actor)
    for ref in waiting:
        with pytest.raises(ActorDiedError):
            ray.get(ref, timeout=60)


def test_async_actors_that_call_each_other() -> None:
    @ray.remote
    class Node:
        def __init__(self) -> None:
            self.other: Any = None

        async def connect(self, other: Any) -> None:
            self.other = other[0]

        async def count(self, n: int) -> int:
            return n if n == 0 else 1 + await self.other.count.remote(n - 1)

    one, two = Node.remote(), Node.remote()
    ray.get([one.connect.remote([two]), two.connect.remote([one])])
    assert ray.get(one.count.remote(20), timeout=60) == 20
    ray.kill(one)


def test_a_stream_of_an_async_actor_ends_when_it_is_dropped() -> None:
    @ray.remote
    class Feed:
        async def endless(self) -> Any:
            import asyncio

            yield 1
            await asyncio.Event().wait()

        async def ping(self) -> str:
            return "pong"

    feed = Feed.remote()
    stream = feed.endless.remote()
    assert ray.get(next(stream)) == 1
    del stream
    assert ray.get(feed.ping.remote(), timeout=60) == "pong"


def test_a_cancelled_call_that_waits_for_a_thread_does_not_begin() -> None:
    @ray.remote(max_concurrency=2)
    class Busy:
        def __init__(self) -> None:
            import threading

            self.event, self.begun = threading.Event(), 0

        def wait(self) -> int:
            self.begun += 1
            self.event.wait(60)
            return self.begun

        def release(self) -> None:
            self.event.set()

    busy = Busy.options(concurrency_groups={"control": 1}).remote()
    running = [busy.wait.remote() for _ in range(2)]
    third = busy.wait.remote()
    ray.cancel(third)
    ray.get(busy.release.options(concurrency_group="control").remote(), timeout=60)
    assert max(ray.get(running, timeout=60)) == 2
    assert ray.get(busy.wait.remote(), timeout=60) == 3


def test_copies_of_handles_are_the_same_actor() -> None:
    import copy

    counter = Counter.remote()
    assert copy.deepcopy([counter])[0] == counter == copy.copy(counter)


def test_methods_that_are_more_than_functions_of_the_class() -> None:
    @ray.remote
    class Unusual:
        def __init__(self) -> None:
            self.made = lambda x: x + 1

        @staticmethod
        def static(x: int) -> int:
            return x + 10

        @classmethod
        def of_class(cls, x: int) -> str:
            return f"{cls.__name__}{x}"

        def plain(self, x: int) -> int:
            return x + 100

        def replace(self) -> None:
            type(self).plain = lambda self, x: x + 200  # type: ignore[method-assign]

        def shadow(self) -> None:
            self.plain = lambda x: x + 300  # type: ignore[method-assign]

    actor = Unusual.options(name="unusual").remote()
    for _ in range(2):
        found = ray.get([actor.static.remote(1), actor.of_class.remote(1), actor.plain.remote(1)])
        assert found == [11, "Unusual1", 101]
        with pytest.raises(AttributeError, match="made"):
            ray.get_actor("unusual").made  # noqa: B018 -- it is no method of the class
    ray.get(actor.shadow.remote())
    assert ray.get(actor.plain.remote(1)) == 101
    ray.get(actor.replace.remote())
    assert ray.get(actor.plain.remote(1)) == 201


def test_a_method_keeps_its_actor_and_an_actor_does_not_keep_its_methods() -> None:
    method = Counter.remote().increment
    assert ray.get([method.remote(), method.remote()]) == [1, 2]
    gc.disable()
    try:
        actor = Counter.remote()
        pid = ray.get(actor.pid.remote())
        del actor
        deadline = time.monotonic() + 60
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{pid}")
    finally:
        gc.enable()


def test_a_method_can_be_passed_on() -> None:
    @ray.remote
    def through(method: Any) -> Any:
        return ray.get(method.remote(2))

    @ray.remote
    def call(remote: Any) -> Any:
        return ray.get(remote(3))

    actor = Counter.remote()
    assert ray.get(through.remote(actor.increment)) == 2
    assert ray.get(actor.increment.remote()) == 3
    assert ray.get(call.remote(actor.increment.remote)) == 6


def test_the_names_of_actors_are_checked() -> None:
    with pytest.raises(ValueError, match="Actor name cannot be an empty string"):
        Counter.options(name="").remote()
    with pytest.raises(TypeError, match="name"):
        Counter.options(name=1).remote()
    first = Counter.options(name="taken twice").remote()
    with pytest.raises(ValueError, match="Please use a different name"):
        Counter.options(name="taken twice").remote()
    ray.kill(first)


def test_the_constructor_of_an_async_actor_finds_its_event_loop() -> None:
    import asyncio

    @ray.remote
    class Loops:
        def __init__(self) -> None:
            self.loop = asyncio.get_event_loop()
            self.background = self.loop.create_task(self.work())

        async def work(self) -> str:
            return "worked"

        async def look(self) -> tuple[bool, str]:
            return asyncio.get_running_loop() is self.loop, await self.background

    assert ray.get(Loops.remote().look.remote()) == (True, "worked")
