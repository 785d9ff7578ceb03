"""What programs of Ray depend on beyond its names. If this fails, such a program gets another result or hangs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

import mobula as ray
from mobula.exceptions import ActorDiedError, RayTaskError, TaskCancelledError, WorkerCrashedError
from mobula.util import ActorPool

pytestmark = pytest.mark.usefixtures("session")


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Worse(Exception):
    """Is not retried."""


@ray.remote
def two_of_three(n: int) -> Any:
    yield from range(n)
    raise KeyError("generator")


def test_a_generator_that_raises_gives_what_it_gave() -> None:
    first, second, third = two_of_three.options(num_returns=3).remote(2)
    assert ray.get([first, second]) == [0, 1]
    with pytest.raises(KeyError):
        ray.get(third)
    # An error that is a result fails the calls that get it as an argument.
    plus = ray.remote(lambda x: x + 1)
    assert ray.get(plus.remote(first)) == 1
    with pytest.raises(KeyError):
        ray.get(plus.remote(third))


def test_a_generator_with_one_result_gives_its_first_item() -> None:
    @ray.remote(num_returns=1)
    def one() -> Any:
        yield [7]

    assert ray.get(one.remote()) == [7]
    assert ray.get(one.options(retry_exceptions=True).remote()) == [7]


def test_a_generator_of_another_length() -> None:
    @ray.remote
    def numbers(n: int) -> Any:
        yield from range(n)

    assert ray.get(numbers.options(num_returns=2).remote(3)) == [0, 1]
    first, second = numbers.options(num_returns=2).remote(1)
    assert ray.get(first) == 0
    with pytest.raises(ValueError, match="num_returns=2"):
        ray.get(second)


def count(path: Any) -> int:
    """Count the calls of a process that may die between them."""
    with open(path, "a") as file:
        file.write(".")
    return os.path.getsize(path)


def test_only_named_exceptions_are_retried(tmp_path: Any) -> None:
    @ray.remote(retry_exceptions=[KeyError], max_retries=2)
    def fails(path: str, *errors: Exception) -> int:
        calls = count(path)
        if calls <= len(errors):
            raise errors[calls - 1]
        return calls

    assert ray.get(fails.remote(str(tmp_path / "a"), KeyError(), KeyError())) == 3
    with pytest.raises(Worse):
        ray.get(fails.remote(str(tmp_path / "b"), KeyError(), Worse()))
    assert count(tmp_path / "b") == 3
    with pytest.raises(Worse):
        ray.get(fails.options(num_returns=2).remote(str(tmp_path / "c"), Worse()))
    assert count(tmp_path / "c") == 2


def test_a_retried_generator_begins_again(tmp_path: Any) -> None:
    @ray.remote(retry_exceptions=True, max_retries=1)
    def numbers(path: str) -> Any:
        yield 1
        if count(path) == 1:
            raise KeyError
        yield 2

    assert ray.get(numbers.options(num_returns=2).remote(str(tmp_path / "a"))) == [1, 2]
    named = numbers.options(retry_exceptions=[KeyError])
    assert [ray.get(ref) for ref in named.remote(str(tmp_path / "b"))] == [1, 2]
    refs = list(numbers.options(retry_exceptions=[Worse]).remote(str(tmp_path / "c")))
    assert ray.get(refs[0]) == 1
    with pytest.raises(KeyError):
        ray.get(refs[-1])
    assert len(refs) == 2


def test_retry_exceptions_are_checked() -> None:
    with pytest.raises(TypeError, match="retry_exceptions"):
        ray.remote(retry_exceptions="KeyError")(len)
    with pytest.raises(ValueError, match="retry_exceptions"):
        ray.remote(retry_exceptions=[1])(len)


def test_an_error_of_a_call_is_of_its_class_in_the_calls_that_get_it() -> None:
    @ray.remote(max_retries=0)
    def dies() -> None:
        os._exit(1)

    @ray.remote
    def gets(refs: list[Any]) -> Any:
        return ray.get(refs[0])

    with pytest.raises(WorkerCrashedError) as raised:
        ray.get(gets.remote([dies.remote()]))
    assert isinstance(raised.value, RayTaskError)


def test_a_large_function_is_refused() -> None:
    large = bytearray(96 << 20)
    with pytest.raises(ValueError, match=r"The remote function .*<lambda> is too large"):
        ray.remote(lambda: len(large)).remote()


@ray.remote(num_cpus=0)
class Greeter:
    def hi(self) -> str:
        return "hi"

    def end(self) -> None:
        ray.actor.exit_actor()


def test_a_method_sees_what_its_class_has() -> None:
    @ray.remote(num_cpus=0)
    class Limits:
        MOST = 3

        @staticmethod
        def twice(x: int) -> int:
            return 2 * x

        def most(self) -> int:
            return Limits.twice(Limits.MOST)

    assert ray.get(Limits.remote().most.remote()) == 6 == Limits.twice(Limits.MOST)
    assert [name for name in dir(Limits) if name[0] != "_"] == ["MOST", "bind", "most", "options", "remote", "twice"]
    with pytest.raises(AttributeError):
        _ = Limits.least


def test_a_method_is_called_though_an_attribute_has_its_name() -> None:
    @ray.remote(num_cpus=0)
    class Shadowed:
        def __init__(self) -> None:
            self.value = 3

        def value(self) -> int:  # type: ignore[no-redef]
            return self.value + 1  # type: ignore[operator]

    assert ray.get(Shadowed.remote().value.remote()) == 4


def test_a_function_runs_on_the_state_of_an_actor() -> None:
    actor = Greeter.remote()
    assert ray.get(actor.__ray_call__.remote(lambda self, name: f"{self.hi()} {name}", name="you")) == "hi you"


def test_a_program_may_wrap_its_calls() -> None:
    def minus(x: int, y: int) -> int:
        return x - y

    minus.__ray_invocation_decorator__ = (  # type: ignore[attr-defined]
        lambda call: lambda args, kwargs: call(args[::-1], kwargs)
    )
    assert ray.get(ray.remote(minus).remote(1, 3)) == 2


def test_namespaces_hold_names_apart() -> None:
    here, there = Greeter.options(name="same").remote(), Greeter.options(name="same", namespace="other").remote()
    assert ray.get_actor("same") == here != there == ray.get_actor("same", namespace="other")
    assert ray.get_actor("same", namespace=ray.get_runtime_context().namespace) == here
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("same", namespace="third")
    find = ray.remote(lambda: [ray.get_actor("same"), ray.get_actor("same", "other")])
    assert ray.get(find.remote()) == [here, there]


def test_a_detached_actor_needs_no_handle() -> None:
    Greeter.options(name="kept", lifetime="detached").remote()
    assert ray.get(ray.get_actor("kept").hi.remote()) == "hi"
    start = ray.remote(lambda: Greeter.options(name="kept by itself", lifetime="detached").remote() and None)
    ray.get(start.remote())
    for name in ("kept", "kept by itself"):
        actor = ray.get_actor(name)
        assert ray.get(actor.hi.remote()) == "hi"
        ray.kill(actor)
        with pytest.raises(ValueError):
            ray.get_actor(name)


def test_the_error_of_an_actor_that_ended_itself_says_so() -> None:
    actor = Greeter.remote()
    with pytest.raises(ActorDiedError, match="exit_actor"):
        ray.get(actor.end.remote())


def test_a_cancelled_call_is_cancelled_for_the_calls_that_get_it(tmp_path: Any) -> None:
    @ray.remote(num_cpus=0)
    def waits(refs: list[Any]) -> Any:
        return ray.get(refs[0])

    @ray.remote(num_cpus=0)
    def until_there(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)

    path = str(tmp_path / "there")
    cancelled = waits.remote([until_there.remote(path)])
    outer = waits.remote([cancelled])
    assert ray.wait([outer], timeout=0.2)[0] == []
    ray.cancel(cancelled, recursive=False)
    for ref in (cancelled, outer):
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=60)
    with open(path, "w"):
        pass


def test_a_cancelled_function_is_interrupted_wherever_it_is(tmp_path: Any) -> None:
    @ray.remote(num_cpus=1)
    def sleeps(path: str) -> None:
        count(path)
        time.sleep(1000)

    @ray.remote(num_cpus=1)
    def loops(path: str) -> None:
        sleeping = sleeps.remote(f"{path}.inner")
        count(path)
        while True:
            # The sleeping call is cancelled with this one.
            assert sleeping is not None

    path = str(tmp_path / "loops")
    ref = loops.remote(path)
    wait_until(lambda: os.path.exists(path) and os.path.exists(f"{path}.inner"))
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=60)
    # The CPUs of both are free: a call that demands both runs.
    assert ray.get(ray.remote(lambda: 1).options(num_cpus=2).remote(), timeout=60) == 1


def test_the_error_of_an_actor_that_was_killed_has_the_words_of_ray() -> None:
    actor = Greeter.remote()
    ray.kill(actor)
    with pytest.raises(ActorDiedError, match=r"killed by `ray\.kill`"):
        ray.get(actor.hi.remote())


def test_a_pool_does_not_wait_for_results_of_before(tmp_path: Any) -> None:
    @ray.remote(num_cpus=0, max_concurrency=3)
    class Waits:
        def until(self, path: str) -> str:
            while path and not os.path.exists(path):
                time.sleep(0.01)
            return path

    pool = ActorPool([Waits.remote()])
    path = str(tmp_path / "there")
    for _ in range(2):
        pool.submit(lambda actor, value: actor.until.remote(value), path)
    assert list(pool.map(lambda actor, value: actor.until.remote(value), [""])) == [""]
    with open(path, "w"):
        pass


def test_an_actor_that_was_killed_to_restart_restarts() -> None:
    @ray.remote(max_restarts=1, max_task_retries=-1, num_cpus=0)
    class Process:
        def pid(self) -> int:
            return os.getpid()

    actor = Process.remote()
    before = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    wait_until(lambda: ray.get(actor.pid.remote(), timeout=60) != before)
    # It may restart once only, so this ends it.
    ray.kill(actor, no_restart=False)
    with pytest.raises(ActorDiedError):
        while True:
            ray.get(actor.pid.remote(), timeout=60)


def test_a_reference_calls_back_and_is_a_future() -> None:
    done: list[Any] = []
    ray.put(5)._on_completed(done.append)
    two_of_three.options(num_returns=2).remote(0)[0]._on_completed(done.append)
    wait_until(lambda: len(done) == 2)
    assert 5 in done and any(isinstance(one, KeyError) for one in done)

    async def main(ref: Any) -> Any:
        return await ref.as_future()

    assert asyncio.run(main(ray.put(6))) == 6
