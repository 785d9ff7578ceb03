"""Actors with several calls under way: on an event loop, on threads, in groups. And ``await`` in the driver."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import ray

from programs import classes, raised


@ray.remote
class _Async:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.running = self.most = 0

    async def echo(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    async def wait(self) -> str:
        await self.event.wait()
        return "waited"

    async def set(self) -> None:
        self.event.set()

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise ValueError("async")

    async def sleep(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.1)
        self.running -= 1

    async def get_most(self) -> int:
        return self.most

    async def get(self, refs: list[Any]) -> Any:
        return await asyncio.gather(*refs)

    def plain(self) -> str:
        return "plain"

    async def numbers(self, n: int) -> Any:
        for i in range(n):
            await asyncio.sleep(0)
            yield i


@ray.remote
def _echo(value: Any) -> Any:
    return value


@ray.remote
def _fail() -> None:
    raise KeyError("k")


def an_async_method() -> Any:
    return ray.get(_Async.remote().echo.remote(5))


def many_async_calls() -> Any:
    actor = _Async.remote()
    return ray.get([actor.echo.remote(i) for i in range(20)])


def one_call_waits_for_another() -> Any:
    actor = _Async.remote()
    waiting = [actor.wait.remote() for _ in range(3)]
    early, _ = ray.wait(waiting, timeout=0.2)
    ray.get(actor.set.remote())
    return early, ray.get(waiting)


def calls_overlap() -> Any:
    actor = _Async.remote()
    ray.get([actor.sleep.remote() for _ in range(5)])
    return ray.get(actor.get_most.remote())


def a_limit_of_calls() -> Any:
    actor = _Async.options(max_concurrency=2).remote()
    ray.get([actor.sleep.remote() for _ in range(5)])
    return ray.get(actor.get_most.remote())


def a_method_that_is_not_async() -> Any:
    return ray.get(_Async.remote().plain.remote())


def errors_of_async_methods() -> Any:
    actor = _Async.remote()
    return raised(lambda: ray.get(actor.fail.remote())), ray.get(actor.echo.remote(1))


def references_are_awaited_within_an_actor() -> Any:
    return ray.get(_Async.remote().get.remote([ray.put(1), _echo.remote(2)]))


def an_async_generator() -> Any:
    return [ray.get(ref) for ref in _Async.remote().numbers.remote(4)]


def an_async_generator_read_by_a_loop() -> Any:
    async def read() -> list[int]:
        return [await ref async for ref in _Async.remote().numbers.remote(4)]

    return asyncio.run(read())


def async_methods_run_on_one_thread() -> Any:
    @ray.remote
    class Threads:
        async def thread(self) -> int:
            await asyncio.sleep(0.01)
            return threading.get_ident()

    actor = Threads.remote()
    return len(set(ray.get([actor.thread.remote() for _ in range(10)])))


def an_async_constructor_has_a_loop() -> Any:
    @ray.remote
    class Loops:
        def __init__(self) -> None:
            self.queue: asyncio.Queue[int] = asyncio.Queue()

        async def put(self, value: int) -> None:
            await self.queue.put(value)

        async def get(self) -> int:
            return await self.queue.get()

    actor = Loops.remote()
    got = actor.get.remote()
    ray.get(actor.put.remote(4))
    return ray.get(got)


def async_calls_are_cancelled() -> Any:
    actor = _Async.remote()
    ref = actor.wait.remote()
    ray.wait([ref], timeout=0.2)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref)), ray.get(actor.echo.remote(1))


def an_actor_runs_calls_on_threads() -> Any:
    @ray.remote(max_concurrency=3)
    class Meets:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def meet(self) -> bool:
            self.barrier.wait(timeout=60)
            return True

    actor = Meets.remote()
    return ray.get([actor.meet.remote() for _ in range(3)])


def a_thread_waits_for_another_call() -> Any:
    @ray.remote(max_concurrency=2)
    class Waits:
        def __init__(self) -> None:
            self.event = threading.Event()

        def wait(self) -> bool:
            return self.event.wait(timeout=60)

        def set(self) -> None:
            self.event.set()

    actor = Waits.remote()
    ref = actor.wait.remote()
    ray.get(actor.set.remote())
    return ray.get(ref)


def a_concurrency_that_cannot_be() -> Any:
    return raised(lambda: _Async.options(max_concurrency=0).remote()), raised(
        lambda: _Async.options(max_concurrency=-1).remote()
    )


def concurrency_groups() -> Any:
    @ray.remote(concurrency_groups={"io": 2, "compute": 1})
    class Groups:
        def __init__(self) -> None:
            self.event = threading.Event()

        @ray.method(concurrency_group="compute")
        def block(self) -> bool:
            return self.event.wait(timeout=60)

        @ray.method(concurrency_group="io")
        def open(self) -> str:
            self.event.set()
            return "open"

        def plain(self) -> str:
            return "plain"

    actor = Groups.remote()
    blocked = actor.block.remote()
    return ray.get(actor.plain.remote()), ray.get(actor.open.remote()), ray.get(blocked)


def a_group_as_an_option() -> Any:
    @ray.remote(concurrency_groups={"io": 1})
    class Groups:
        def thread(self) -> int:
            return threading.get_ident()

    actor = Groups.remote()
    one, two = ray.get([actor.thread.remote(), actor.thread.options(concurrency_group="io").remote()])
    return one != two


def async_concurrency_groups() -> Any:
    @ray.remote(concurrency_groups={"io": 1})
    class Groups:
        def __init__(self) -> None:
            self.is_open = False

        @ray.method(concurrency_group="io")
        async def block(self) -> str:
            # Each group has an event loop of its own, and an `asyncio.Event` is only for one.
            while not self.is_open:
                await asyncio.sleep(0.001)
            return "blocked"

        async def open(self) -> None:
            self.is_open = True

    actor = Groups.remote()
    blocked = actor.block.remote()
    ray.get(actor.open.remote())
    return ray.get(blocked)


def await_a_reference() -> Any:
    async def main() -> Any:
        return await _echo.remote(3)

    return asyncio.run(main())


def await_an_error() -> Any:
    async def main() -> Any:
        try:
            await _fail.remote()
        except KeyError as error:
            return classes(error)

    return asyncio.run(main())


def gather_references() -> Any:
    async def main() -> Any:
        return await asyncio.gather(*[_echo.remote(i) for i in range(5)])

    return asyncio.run(main())


def gather_errors() -> Any:
    async def main() -> Any:
        found = await asyncio.gather(_echo.remote(1), _fail.remote(), return_exceptions=True)
        return found[0], classes(found[1])

    return asyncio.run(main())


def await_a_put() -> Any:
    async def main() -> Any:
        return await ray.put(4)

    return asyncio.run(main())


def await_twice() -> Any:
    async def main() -> Any:
        ref = _echo.remote(5)
        return await ref, await ref

    return asyncio.run(main())


def await_with_a_timeout() -> Any:
    async def main() -> Any:
        actor = _Async.remote()
        try:
            await asyncio.wait_for(actor.wait.remote(), timeout=0.2)
        except TimeoutError:
            return "timeout"

    return asyncio.run(main())


def asyncio_wait() -> Any:
    async def main() -> Any:
        refs = [_echo.remote(i) for i in range(3)]
        done, pending = await asyncio.wait([asyncio.wrap_future(ref.future()) for ref in refs])
        return sorted(future.result() for future in done), len(pending)

    return asyncio.run(main())


def as_completed() -> Any:
    async def main() -> Any:
        futures = [asyncio.wrap_future(_echo.remote(i).future()) for i in range(4)]
        return sorted([await future for future in asyncio.as_completed(futures)])

    return asyncio.run(main())


def the_loop_runs_while_a_reference_is_awaited() -> Any:
    async def main() -> Any:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        await ray.remote(lambda: time.sleep(0.3)).remote()
        ticking.cancel()
        return ticks > 3

    return asyncio.run(main())
