"""``cancel``: of functions and methods that run, wait, or are over."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import ray

from programs import raised, said, until

INIT = {"num_cpus": 2}


@ray.remote
def _sleep(path: str = "", value: Any = None) -> Any:
    if path:
        open(path, "w").close()
    for _ in range(600):
        time.sleep(0.1)
    return value


@ray.remote
def _echo(value: Any) -> Any:
    return value


def _running(directory: str, **options: Any) -> Any:
    path = f"{directory}/running"
    ref = _sleep.options(**options).remote(path)
    assert until(lambda: os.path.exists(path))
    return ref


def a_call_that_runs(directory: str) -> Any:
    ref = _running(directory)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref))


def a_call_that_runs_by_force(directory: str) -> Any:
    ref = _running(directory)
    ray.cancel(ref, force=True)
    return "WorkerCrashedError" in (found := raised(lambda: ray.get(ref))) or "TaskCancelledError" in found


def a_call_that_waits_for_a_cpu() -> Any:
    running = [_sleep.remote() for _ in range(2)]
    waiting = _echo.remote(1)
    ray.cancel(waiting)
    error = raised(lambda: ray.get(waiting))
    for ref in running:
        ray.cancel(ref, force=True)
    return error


def a_call_that_waits_for_another(directory: str) -> Any:
    ref = _running(directory)
    waiting = _echo.remote(ref)
    ray.cancel(waiting)
    error = raised(lambda: ray.get(waiting))
    ray.cancel(ref, force=True)
    return error


def calls_that_need_a_cancelled_one(directory: str) -> Any:
    ref = _running(directory)
    one = _echo.remote(ref)
    two = _echo.remote(one)
    ray.cancel(ref)
    return [raised(lambda ref=ref: ray.get(ref)) for ref in (ref, one, two)]


def a_call_that_is_over() -> Any:
    ref = _echo.remote(5)
    ray.get(ref)
    ray.cancel(ref)
    return ray.get(ref)


def twice(directory: str) -> Any:
    ref = _running(directory)
    ray.cancel(ref)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref))


def the_program_catches_it(directory: str) -> Any:
    @ray.remote
    def catches(path: str) -> str:
        open(path, "w").close()
        try:
            for _ in range(600):
                time.sleep(0.1)
        except KeyboardInterrupt:
            open(f"{path}-caught", "w").close()
            raise
        return "over"

    ref = catches.remote(f"{directory}/a")
    until(lambda: os.path.exists(f"{directory}/a"))
    ray.cancel(ref)
    return raised(lambda: ray.get(ref)), until(lambda: os.path.exists(f"{directory}/a-caught"))


def calls_of_a_cancelled_call(directory: str) -> Any:
    @ray.remote(num_cpus=0)
    def inner(path: str) -> None:
        open(f"{path}-begun", "w").close()
        try:
            for _ in range(600):
                time.sleep(0.1)
        except KeyboardInterrupt:
            open(f"{path}-cancelled", "w").close()
            raise

    @ray.remote(num_cpus=0)
    def outer(path: str) -> None:
        ray.get(inner.remote(path))

    ref = outer.remote(f"{directory}/a")
    begun = until(lambda: os.path.exists(f"{directory}/a-begun"))
    ray.cancel(ref)
    return begun, raised(lambda: ray.get(ref)), until(lambda: os.path.exists(f"{directory}/a-cancelled"))


def a_method_that_waits_its_turn(directory: str) -> Any:
    @ray.remote(num_cpus=0)
    class Slow:
        def wait(self, path: str) -> str:
            open(f"{path}-begun", "w").close()
            until(lambda: os.path.exists(path))
            return "waited"

        def next(self) -> str:
            return "next"

    actor = Slow.remote()
    first = actor.wait.remote(f"{directory}/go")
    until(lambda: os.path.exists(f"{directory}/go-begun"))
    second, third = actor.next.remote(), actor.next.remote()
    ray.wait([second], timeout=0.5)
    ray.cancel(second)
    open(f"{directory}/go", "w").close()
    return ray.get(first), raised(lambda: ray.get(second)), ray.get(third)


def a_method_by_force() -> Any:
    @ray.remote(num_cpus=0)
    class Slow:
        def wait(self) -> None:
            time.sleep(1)

    return said(lambda: ray.cancel(Slow.remote().wait.remote(), force=True))


def an_async_method() -> Any:
    @ray.remote(num_cpus=0)
    class Slow:
        async def wait(self) -> None:
            await asyncio.sleep(60)

        async def next(self) -> str:
            return "next"

    actor = Slow.remote()
    ref = actor.wait.remote()
    ray.get(actor.next.remote())
    ray.cancel(ref)
    return raised(lambda: ray.get(ref)), ray.get(actor.next.remote())


def other_things() -> Any:
    return raised(lambda: ray.cancel(5)), raised(lambda: ray.cancel([ray.put(1)]))


def a_put() -> Any:
    ref = ray.put(1)
    return raised(lambda: ray.cancel(ref)), ray.get(ref)


def the_next_call_after_a_cancelled_one(directory: str) -> Any:
    ref = _running(directory)
    ray.cancel(ref)
    raised(lambda: ray.get(ref))
    return ray.get([_echo.remote(i) for i in range(5)])


def wait_for_a_cancelled_call(directory: str) -> Any:
    ref = _running(directory)
    ray.cancel(ref)
    ready, rest = ray.wait([ref], timeout=60)
    return len(ready), rest


def it_is_no_retry(directory: str) -> Any:
    ref = _running(directory, max_retries=5, retry_exceptions=True)
    ray.cancel(ref)
    return raised(lambda: ray.get(ref))
