"""``mobula.futures.Executor``: if these fail, programs of ``concurrent.futures`` do something else here."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mobula
from mobula.exceptions import ActorDiedError
from mobula.futures import Executor

LONG = 60


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    mobula.init(num_cpus=2)
    yield
    mobula.shutdown()


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


def add(x: int, y: int = 0, *, z: int = 0) -> int:
    return x + y + z


def fail(x: int) -> None:
    raise KeyError(x)


def wait_for_file(path: str) -> bool:
    deadline = time.monotonic() + LONG
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.005)
    return os.path.exists(path)


def test_calls_and_errors(executor: Executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor.submit(add, 1, 2, z=3).result(LONG) == 6
    error = executor.submit(fail, 7).exception(LONG)
    assert type(error) is KeyError and error.args == (7,)
    assert "fail" in str(error.__cause__)
    done: list[Any] = []
    future = executor.submit(lambda: 5)
    future.add_done_callback(lambda future: done.append(future.result()))
    assert concurrent.futures.wait([future], LONG).not_done == set()
    assert executor.submit(add, 1).result(LONG) == 1
    assert done == [5]


def test_map_is_the_standard_librarys(executor: Executor) -> None:
    for chunksize in (1, 3, 100):
        assert list(executor.map(add, range(10), range(5), chunksize=chunksize)) == [0, 2, 4, 6, 8]
    assert list(executor.map(add, [])) == []
    results = executor.map(fail, [1, 2], chunksize=1)
    with pytest.raises(KeyError):
        next(results)
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(add, [1], chunksize=0)


def test_a_map_has_a_timeout(executor: Executor, tmp_path: Path) -> None:
    results = executor.map(wait_for_file, [str(tmp_path / "go")], timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    (tmp_path / "go").touch()


def test_what_has_not_begun_can_be_cancelled(tmp_path: Path) -> None:
    with Executor(1) as executor:
        first = executor.submit(wait_for_file, str(tmp_path / "go"))
        second, third = executor.submit(add, 1), executor.submit(add, 2)
        assert first.running() and not first.cancel()
        assert second.cancel() and second.cancelled()
        (tmp_path / "go").touch()
        assert first.result(LONG) and third.result(LONG) == 2
        with pytest.raises(concurrent.futures.CancelledError):
            second.result(0)


def test_shutdown_cancels_what_has_not_begun(tmp_path: Path) -> None:
    executor = Executor(1)
    first = executor.submit(wait_for_file, str(tmp_path / "go"))
    later = [executor.submit(add, i) for i in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert concurrent.futures.wait(later, LONG).not_done == set()
    assert all(future.cancelled() for future in later)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1)
    (tmp_path / "go").touch()
    executor.shutdown()
    assert first.result(0)


def test_shutdown_waits_for_the_calls() -> None:
    executor = Executor(2)
    futures = [executor.submit(add, i) for i in range(100)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == list(range(100))


def test_a_process_that_dies_fails_its_call_alone(executor: Executor) -> None:
    futures = [executor.submit(os._exit, 1) if i == 2 else executor.submit(add, i) for i in range(6)]
    for i, future in enumerate(futures):
        if i == 2:
            assert isinstance(future.exception(LONG), ActorDiedError)
        else:
            assert future.result(LONG) == i


def test_a_program_ends_when_its_calls_are_over(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import pathlib
        from mobula.futures import Executor
        executor = Executor(2)
        for i in range(20):
            executor.submit(pathlib.Path.touch, pathlib.Path({str(tmp_path)!r}, str(i)))
        """
    )
    subprocess.run([sys.executable, "-c", script], timeout=LONG, check=True)
    assert len(list(tmp_path.iterdir())) == 20


def test_a_callback_may_wait_for_another_result(session: None) -> None:
    @mobula.remote
    def wait_for(event: Any) -> int:
        return 1

    slow = mobula.remote(time.sleep)
    done = threading.Event()
    found: list[Any] = []

    def callback(finished: Any) -> None:
        # The thread that waits for all results would wait for itself.
        found.append(slow.remote(0).future().result(60))
        done.set()

    slow.remote(0.05).future().add_done_callback(callback)
    assert done.wait(60) and found == [None]
    called = threading.Event()
    slow.remote(0.05)._on_completed(lambda value: (slow.remote(0).future().result(60), called.set()))
    assert called.wait(60)


def test_a_forked_child_gets_an_error_and_does_not_wait(session: None) -> None:
    reference = mobula.remote(time.sleep).remote(1)
    reference.future()
    child = os.fork()
    if child == 0:
        try:
            reference.future().result(60)
        except RuntimeError:
            os._exit(7)
        except BaseException:
            os._exit(8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert mobula.get(reference) is None
