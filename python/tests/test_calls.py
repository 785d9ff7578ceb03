"""Calls of functions: arguments, results, errors, waiting. If this fails, programs get another call than they made."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobula as ray
from mobula.exceptions import (
    GetTimeoutError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

pytestmark = pytest.mark.usefixtures("session")


@ray.remote
def add(a: int, b: int = 10, *rest: int, scale: int = 1, **more: int) -> int:
    return (a + b + sum(rest) + sum(more.values())) * scale


def test_arguments_of_all_kinds() -> None:
    assert ray.get(add.remote(1)) == 11
    assert ray.get(add.remote(1, 2, 3, 4)) == 10
    assert ray.get(add.remote(b=1, a=2)) == 3
    assert ray.get(add.remote(1, scale=2, x=5, y=6)) == 44
    assert ray.get(add.remote(*range(100))) == sum(range(100))


def test_arguments_that_do_not_fit_fail_at_once() -> None:
    @ray.remote
    def two(a: int, b: int) -> None: ...

    for arguments, names in [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1, 2), {"b": 2})]:
        with pytest.raises(TypeError):
            two.remote(*arguments, **names)


def test_references_are_arguments() -> None:
    one = add.remote(0, 1)
    assert ray.get(add.remote(one, one, scale=one)) == 2
    # Within a list they stay references.
    kinds = ray.remote(lambda refs: [type(ref).__name__ for ref in refs])
    assert ray.get(kinds.remote([one, one])) == ["ObjectRef", "ObjectRef"]


def test_results() -> None:
    @ray.remote(num_returns=3)
    def three() -> Any:
        return 1, "two", np.arange(3)

    one, two, array = three.remote()
    assert ray.get([one, two]) == [1, "two"] and ray.get(array).tolist() == [0, 1, 2]
    assert ray.get(three.options(num_returns=1).remote())[:2] == (1, "two")
    with pytest.raises(ValueError, match="num_returns=2"):
        ray.get(three.options(num_returns=2).remote())
    assert three.options(num_returns=0).remote() is None


def test_functions_and_what_they_refer_to() -> None:
    factor = 3

    def helper(x: int) -> int:
        return x * factor

    @ray.remote
    def nested(x: int) -> int:
        return helper(x)

    assert ray.get(nested.remote(2)) == 6
    assert ray.get(ray.remote(lambda x: x + factor).remote(1)) == 4

    @ray.remote
    def calls_others(n: int) -> int:
        return n if n == 0 else 1 + ray.get(calls_others.remote(n - 1))

    assert ray.get(calls_others.remote(5)) == 5


def test_a_remote_function_cannot_be_called() -> None:
    with pytest.raises(TypeError, match=r"add\.remote\(\)"):
        add(1)


class Refused(ValueError):
    """An error with more than a text."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


def test_errors_are_of_the_class_that_was_raised() -> None:
    @ray.remote
    def fails() -> None:
        raise Refused(7)

    with pytest.raises(Refused) as caught:
        ray.get(fails.remote())
    assert isinstance(caught.value, RayTaskError)
    assert caught.value.code == 7
    text = str(caught.value)
    assert "fails()" in text and "Traceback" in text and "raise Refused(7)" in text


def test_errors_pass_through_dependents() -> None:
    @ray.remote
    def fails() -> int:
        return {}["missing"]

    for ref in (add.remote(fails.remote()), add.remote(1, scale=fails.remote())):
        with pytest.raises(KeyError):
            ray.get(ref)

    @ray.remote
    def waits(refs: list[Any]) -> Any:
        return ray.get(refs[0])

    with pytest.raises(KeyError):
        ray.get(waits.remote([fails.remote()]))


def test_an_error_that_cannot_be_pickled_is_told_in_text() -> None:
    @ray.remote
    def fails() -> None:
        class Odd(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("no")

        raise Odd("the reason")

    with pytest.raises(RayTaskError, match="the reason"):
        ray.get(fails.remote())


def test_a_large_error_is_told_in_text() -> None:
    @ray.remote
    def fails() -> None:
        raise ValueError("x" * 100_000)

    with pytest.raises(RayTaskError, match="xxx"):
        ray.get(fails.remote())


def test_get_waits_no_longer_than_said() -> None:
    release = threading.Event()
    path = f"/tmp/mobula-test-{os.getpid()}"

    @ray.remote
    def waits() -> int:
        while not os.path.exists(path):
            time.sleep(0.005)
        return 1

    ref = waits.remote()
    try:
        with pytest.raises(GetTimeoutError):
            ray.get(ref, timeout=0.01)
        with pytest.raises(TimeoutError):
            ray.get([ref], timeout=0)
        assert ray.wait([ref], timeout=0.01) == ([], [ref])
    finally:
        open(path, "w").close()
    assert ray.get(ref, timeout=60) == 1
    os.unlink(path)
    release.set()


def test_wait_keeps_the_order() -> None:
    refs = [add.remote(i) for i in range(10)]
    ready, rest = ray.wait(refs, num_returns=10, timeout=60)
    assert ready == refs and rest == []
    ready, rest = ray.wait(refs, num_returns=3)
    assert len(ready) == 3 and ready + rest == refs
    for bad, error in [((refs[0],), TypeError), (([refs[0], refs[0]],), ValueError), (([1],), TypeError)]:
        with pytest.raises(error):
            ray.wait(*bad)
    with pytest.raises(ValueError):
        ray.wait(refs, num_returns=11)
    with pytest.raises(ValueError):
        ray.wait(refs, num_returns=0)


def test_retries() -> None:
    path = f"/tmp/mobula-test-{os.getpid()}"

    @ray.remote(max_retries=2, retry_exceptions=True)
    def third_time() -> int:
        with open(path, "a+") as file:
            file.write("x")
            file.flush()
            times = file.tell()
        if times < 3:
            raise ValueError("not yet")
        return times

    @ray.remote(max_retries=2)
    def dies_twice() -> int:
        with open(path, "a+") as file:
            file.write("x")
            file.flush()
            times = file.tell()
        if times < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return times

    for function in (third_time, dies_twice):
        try:
            assert ray.get(function.remote()) == 3
        finally:
            os.unlink(path)


def test_a_worker_that_dies() -> None:
    @ray.remote(max_retries=0)
    def dies() -> None:
        os._exit(3)

    with pytest.raises(WorkerCrashedError, match=r"exited with code 3.*`mobula postmortem \d+`"):
        ray.get(dies.remote())
    assert ray.get(add.remote(1)) == 11


def test_cancel() -> None:
    @ray.remote
    def waits(refs: list[Any]) -> None:
        ray.get(refs)

    @ray.remote
    def forever() -> None:
        while True:
            time.sleep(0.01)

    endless = forever.remote()
    waiting = waits.remote([endless])
    ray.cancel(waiting)
    with pytest.raises(TaskCancelledError):
        ray.get(waiting, timeout=60)
    ray.cancel(endless, force=True)
    with pytest.raises(RayError):
        ray.get(endless, timeout=60)
    done = add.remote(1)
    ray.get(done)
    ray.cancel(done)
    assert ray.get(done) == 11
    with pytest.raises(TypeError):
        ray.cancel(1)


def test_a_cancelled_function_is_interrupted() -> None:
    path = f"/tmp/mobula-test-{os.getpid()}"

    @ray.remote(num_cpus=2)
    def sleeps() -> None:
        open(path, "w").close()
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            os.unlink(path)
            raise

    ref = sleeps.remote()
    while not os.path.exists(path):
        time.sleep(0.001)
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=60)
    # It demands all CPUs, so it has ended when this runs. No other call hears of the interruption.
    assert ray.get([add.remote(i) for i in range(100)], timeout=60) == [i + 10 for i in range(100)]
    assert not os.path.exists(path)


def test_a_late_interruption_hits_no_other_call() -> None:
    for _ in range(200):
        refs = [add.remote(i) for i in range(5)]
        ray.cancel(refs[0])
        assert ray.get(refs[1:], timeout=60) == [11, 12, 13, 14]


def test_many_at_once() -> None:
    assert ray.get([add.remote(i) for i in range(5000)]) == [i + 10 for i in range(5000)]


def test_threads() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for i in range(100):
                assert ray.get(add.remote(i)) == i + 10
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_streams() -> None:
    @ray.remote
    def count(n: int) -> Any:
        for i in range(n):
            yield np.full(10, i)

    assert [int(ray.get(ref)[0]) for ref in count.remote(300)] == list(range(300))
    # As a list where a number of results is asked for.
    assert [int(ray.get(ref)[0]) for ref in count.options(num_returns=2).remote(2)] == [0, 1]

    @ray.remote
    def fails(n: int) -> Any:
        yield from range(n)
        raise KeyError("end")

    stream = fails.remote(2)
    assert [ray.get(next(stream)) for _ in range(2)] == [0, 1]
    with pytest.raises(KeyError):
        ray.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("limit", [1, 5, 7])
def test_a_function_makes_another_item_as_soon_as_one_is_taken(limit: int, tmp_path: Path) -> None:
    @ray.remote
    def count(directory: Path) -> Any:
        for i in itertools.count():
            (directory / str(i)).touch()
            yield i

    stream = count.options(_generator_backpressure_num_objects=limit).remote(tmp_path)
    for taken in range(20):
        deadline = time.monotonic() + 60
        while len(os.listdir(tmp_path)) < taken + limit:
            assert time.monotonic() < deadline, f"{taken} were taken, {len(os.listdir(tmp_path))} made"
            time.sleep(0.001)
        assert len(os.listdir(tmp_path)) == taken + limit
        assert ray.get(next(stream)) == taken


def test_await_and_futures() -> None:
    import asyncio

    @ray.remote
    def count(n: int) -> Any:
        yield from range(n)

    @ray.remote
    def fails() -> None:
        raise KeyError("async")

    async def main() -> None:
        assert await add.remote(1) == 11
        assert await asyncio.gather(*(add.remote(i) for i in range(200))) == [i + 10 for i in range(200)]
        assert await asyncio.wait_for(add.remote(2), 60) == 12
        with pytest.raises(KeyError):
            await fails.remote()
        assert [await ref async for ref in count.remote(10)] == list(range(10))
        waiting = asyncio.ensure_future(asyncio.wrap_future(add.remote(3).future()))
        assert await waiting == 13

    asyncio.run(main())
    asyncio.run(main())
    assert add.remote(4).future().result(60) == 14


def test_environment_of_a_call() -> None:
    read = ray.remote(lambda: (os.environ.get("MOBULA_TEST"), os.getcwd()))
    options = {"env_vars": {"MOBULA_TEST": "yes"}, "working_dir": "/"}
    assert ray.get(read.options(runtime_env=options).remote()) == ("yes", "/")
    assert ray.get(read.remote())[0] is None


def test_a_worker_ends_after_max_calls() -> None:
    @ray.remote(max_calls=2)
    def pid() -> int:
        return os.getpid()

    pids = ray.get([pid.remote() for _ in range(20)]) + [ray.get(pid.remote()) for _ in range(5)]
    assert max(pids.count(one) for one in pids) <= 2


def test_options_that_cannot_be() -> None:
    for options in ({"num_cpus": -1}, {"unknown": 1}, {"num_returns": -2}):
        with pytest.raises(ValueError):
            add.options(**options)
    with pytest.raises(ValueError, match="demands"):
        ray.get(add.options(num_cpus=100).remote(1))
    with pytest.raises(TypeError):
        ray.remote(1)
    with pytest.raises(TypeError):
        ray.remote()


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own."""
    return subprocess.run(
        [sys.executable, *arguments, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )


def test_output_of_workers_has_a_prefix() -> None:
    done = run("import mobula as ray\n@ray.remote\ndef says(): print('one'); print('two')\nray.get(says.remote())\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(") ")[1] for line in lines] == ["one", "two"]
    assert all(line.startswith("(says pid=") for line in lines)


def test_an_interrupt_ends_a_get() -> None:
    program = (
        "import mobula as ray, time, os, signal, threading\n"
        "@ray.remote\n"
        "def sleeps(): time.sleep(1000)\n"
        "ray.init(num_cpus=1)\n"
        "ref = sleeps.remote()\n"
        "threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "try: ray.get(ref)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    done = run(program)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_program_without_shutdown_leaves_nothing() -> None:
    done = run("import mobula as ray, os; print(ray.init(num_cpus=1)['session_dir'])")
    assert done.returncode == 0, done.stderr
    assert not os.path.exists(done.stdout.strip())


def test_a_forked_child_is_refused() -> None:
    ref = ray.put(1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ray.get(ref)
            text = b"no error"
        except RuntimeError as error:
            text = str(error).encode()
        os.write(writing, text)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert "fork" in file.read()
    os.waitpid(child, 0)
    assert ray.get(ref) == 1


def test_functions_capture_references_and_handles() -> None:
    @ray.remote
    class Holder:
        def __init__(self, value: int) -> None:
            self.value = value

        def get(self) -> int:
            return self.value

    def reader(ref: Any) -> Any:
        return ray.remote(lambda: ray.get(ref))

    # The same code, with what it captures only in another object.
    refs = [ray.put(i) for i in range(5)] + [add.remote(0, i) for i in range(5)]
    assert ray.get([reader(ref).remote() for ref in refs]) == [*range(5), *range(5)]

    def asker(holder: Any) -> Any:
        return ray.remote(lambda: ray.get(holder.get.remote()))

    holders = [Holder.remote(i) for i in range(3)]
    assert ray.get([asker(holder).remote() for holder in holders]) == [0, 1, 2]
    # The function keeps what it captures.
    alone = asker(Holder.remote(7))
    assert ray.get([alone.remote() for _ in range(5)]) == [7] * 5

    captured = ray.put("captured")

    @ray.remote
    class Reads:
        def read(self) -> str:
            return ray.get(captured)

    assert ray.get(Reads.remote().read.remote()) == "captured"


def test_what_makes_calls_can_be_passed_on() -> None:
    @ray.remote
    def double(x: int) -> int:
        return 2 * x

    @ray.remote
    def through(call: Any, x: int) -> Any:
        return ray.get(call(x))

    assert ray.get(double.remote(1)) == 2
    assert ray.get(through.remote(double.remote, 4)) == 8
    half = double.options(num_cpus=0.5)
    assert ray.get(half.remote(3)) == 6 and ray.get(half.remote(x=4)) == 8


def test_a_remote_function_that_nobody_has_is_collected() -> None:
    class Mark:
        pass

    def make() -> Any:
        mark = Mark()

        @ray.remote
        def recursive(n: int) -> int:
            # It captures itself, and something that can be watched.
            return 0 if n == 0 or mark is None else n + ray.get(recursive.remote(n - 1))

        assert ray.get(recursive.remote(2)) == 3
        return weakref.ref(mark)

    watched = [make() for _ in range(3)]
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3


def test_wrong_arguments_are_refused_at_every_call() -> None:
    @ray.remote
    def two(a: int, b: int = 1, *, c: int = 2) -> int:
        return a + b + c

    for _ in range(2):
        assert ray.get([two.remote(1), two.remote(1, 2), two.remote(1, c=0), two.remote(a=1, b=1)]) == [4, 5, 2, 4]
        for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"d": 1}), ((1,), {"a": 1})]:
            with pytest.raises(TypeError):
                two.remote(*args, **kwargs)
