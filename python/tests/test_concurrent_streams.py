"""Generators in actors with several calls at a time. If this fails, a stream blocks its actor, or never ends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import mobula as ray
from mobula.exceptions import RayTaskError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("session")

PATIENCE_S = 60


def get(ref: Any) -> Any:
    return ray.get(ref, timeout=PATIENCE_S)


def eventually(look: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, "it has not come so far"
        time.sleep(0.01)


@ray.remote(num_cpus=0)
class Async:
    def __init__(self) -> None:
        self.go, self.closed = asyncio.Event(), 0

    async def when_told(self, n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                await self.go.wait()
                yield i
        finally:
            self.closed += 1

    async def endless(self) -> AsyncIterator[int]:
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            self.closed += 1

    async def fails_behind(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i
        raise KeyError("behind them")

    def plain(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def tell(self) -> None:
        self.go.set()

    async def times_closed(self) -> int:
        return self.closed


@ray.remote(num_cpus=0, max_concurrency=4)
class Threaded:
    def __init__(self) -> None:
        self.go, self.closed = threading.Event(), 0

    def when_told(self, n: int) -> Iterator[int]:
        for i in range(n):
            self.go.wait()
            yield i

    def endless(self) -> Iterator[int]:
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            self.closed += 1

    def fails_behind(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise KeyError("behind them")

    def tell(self) -> None:
        self.go.set()

    def times_closed(self) -> int:
        return self.closed


@pytest.mark.parametrize("cls", [Async, Threaded])
def test_a_stream_that_waits_for_another_call_of_its_actor(cls: Any) -> None:
    actor = cls.remote()
    streams = [actor.when_told.remote(3) for _ in range(3)]
    get(actor.tell.remote())
    assert [[get(ref) for ref in stream] for stream in streams] == [[0, 1, 2]] * 3


@pytest.mark.parametrize("cls", [Async, Threaded])
def test_a_stream_is_not_made_ahead_of_its_caller_without_end(cls: Any) -> None:
    actor = cls.remote()
    stream = actor.endless.options(_generator_backpressure_num_objects=4).remote()
    assert [get(next(stream)) for _ in range(1000)] == list(range(1000))
    # The actor answers meanwhile. The generator is closed when its stream is dropped.
    assert get(actor.times_closed.remote()) == 0
    del stream
    eventually(lambda: get(actor.times_closed.remote()) == 1)


@pytest.mark.parametrize("cls", [Async, Threaded])
def test_an_error_comes_behind_the_items(cls: Any) -> None:
    actor = cls.remote()
    stream = actor.fails_behind.remote(3)
    assert [get(next(stream)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="behind them") as raised:
        get(next(stream))
    assert isinstance(raised.value, RayTaskError) and "fails_behind" in str(raised.value)
    with pytest.raises(StopIteration):
        next(stream)


def test_a_method_that_waits_for_ever_is_cancelled() -> None:
    actor = Async.remote()
    stream = actor.when_told.remote(1)
    assert get(actor.times_closed.remote()) == 0
    ray.cancel(stream)
    with pytest.raises((TaskCancelledError, StopIteration)):
        get(next(stream))
    eventually(lambda: get(actor.times_closed.remote()) == 1)


def test_a_generator_that_is_not_asynchronous() -> None:
    actor = Async.remote()
    assert [get(ref) for ref in actor.plain.remote(300)] == list(range(300))


def test_wrong_arguments_are_an_error_of_the_stream() -> None:
    actor = Async.options(name="streams").remote()
    unchecked = ray.get_actor("streams")
    # As a caller of another language, whose arguments nobody has compared.
    unchecked._mobula_known.signatures.clear()
    with pytest.raises(TypeError):
        get(next(unchecked.endless.options(num_returns="streaming").remote(1, 2, 3)))
    assert get(actor.times_closed.remote()) == 0


def test_each_concurrency_group_has_an_event_loop(tmp_path: Any) -> None:
    @ray.remote(num_cpus=0, concurrency_groups={"io": 2, "compute": 1})
    class Grouped:
        @ray.method(concurrency_group="io")
        async def io(self) -> tuple[int, int]:
            return threading.get_ident(), id(asyncio.get_running_loop())

        @ray.method(concurrency_group="compute")
        async def block(self, gate: Any) -> int:
            # It blocks its loop, as no method should.
            ray.get(gate[0])
            return id(asyncio.get_running_loop())

        async def other(self) -> tuple[int, int]:
            return threading.get_ident(), id(asyncio.get_running_loop())

    @ray.remote(num_cpus=0)
    def opened(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)

    actor, gate = Grouped.remote(), tmp_path / "gate"
    blocked = actor.block.remote([opened.remote(str(gate))])
    first, second, third = get(actor.io.remote()), get(actor.io.remote()), get(actor.other.remote())
    gate.touch()
    assert first == second and first != third
    assert get(blocked) not in (first[1], third[1])


def test_many_streams_at_once() -> None:
    actor = Async.remote()
    streams = [actor.endless.options(_generator_backpressure_num_objects=2).remote() for _ in range(50)]
    for i in range(20):
        assert [get(next(stream)) for stream in streams] == [i] * 50
    del streams
    eventually(lambda: get(actor.times_closed.remote()) == 50)


def test_a_dynamic_stream_can_be_iterated_again_and_passed_on() -> None:
    @ray.remote
    def total(refs: Any) -> int:
        return int(sum(ray.get(list(refs))))

    @ray.remote
    class Counts:
        def up_to(self, n: int) -> Any:
            yield from range(n)

    @ray.remote
    def up_to(n: int) -> Any:
        yield from range(n)

    for made in (up_to.options(num_returns="dynamic"), Counts.remote().up_to.options(num_returns="dynamic")):
        stream = made.remote(5)
        assert isinstance(stream, ray.DynamicObjectRefGenerator)
        assert ray.get(next(stream)) == 0
        assert [ray.get(ref) for ref in stream] == [ray.get(ref) for ref in ray.get(stream)] == [0, 1, 2, 3, 4]
        assert len(stream) == 5 and ray.get(total.remote(stream)) == 10
        # Also before anything of it has come.
        assert ray.get(total.remote(made.remote(3))) == 3
        assert len(made.remote(0)) == 0

    @ray.remote(num_returns="dynamic")
    def no_generator() -> list[int]:
        return [1]

    with pytest.raises(TypeError, match="needs a generator"):
        ray.get(list(no_generator.remote()))


def test_a_wait_for_a_stream_takes_nothing_of_it() -> None:
    @ray.remote(num_cpus=0)
    class Log:
        def __init__(self) -> None:
            self.items: list[int] = []

        def add(self, item: int) -> None:
            self.items.append(item)

        def read(self) -> list[int]:
            return self.items

    @ray.remote(num_cpus=0, _generator_backpressure_num_objects=1)
    def numbers(log: Any) -> Any:
        for number in range(3):
            get(log.add.remote(number))
            yield number

    log = Log.remote()
    stream = numbers.remote(log)
    ended = stream.completed()
    for number in range(3):
        # The function makes the next number when this one is taken, and not when somebody waits for it.
        for _ in range(3):
            assert ray.wait([stream], timeout=PATIENCE_S) == ([stream], [])
        assert ray.wait([ended], timeout=0.1) == ([], [ended])
        assert get(log.read.remote()) == list(range(number + 1))
        assert get(next(stream)) == number
    assert ray.wait([stream], timeout=PATIENCE_S)[0] and list(stream) == []
