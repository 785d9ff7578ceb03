"""``mobula.multiprocessing.Pool``: if these fail, programs of the standard library's pool do something else here."""

from __future__ import annotations

import functools
import gc
import multiprocessing.pool
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mobula
from mobula import multiprocessing as here
from mobula.exceptions import ActorDiedError, RayTaskError

LONG = 60


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    mobula.init(num_cpus=2, ignore_reinit_error=True)
    yield
    mobula.shutdown()


@pytest.fixture(scope="module")
def pool() -> Iterator[here.Pool]:
    with here.Pool(2) as pool:
        yield pool


@pytest.fixture(scope="module", params=["mobula", "standard library"])
def either(request: Any) -> Iterator[Any]:
    """Both pools: what follows is the same for both."""
    if request.param == "mobula":
        with here.Pool(2) as pool:
            yield pool
    else:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            yield pool


def square(x: int) -> int:
    return x * x


def add(x: int, y: int = 0, *, z: int = 0) -> int:
    return x + y + z


def fail_at_three(x: int) -> int:
    if x == 3:
        raise KeyError(f"three: {x}")
    return x


def numbers_then_error() -> Iterator[int]:
    yield 1
    yield 2
    raise ValueError("no more")


def test_the_interface_is_the_standard_librarys(either: Any) -> None:
    assert either.apply(add, (1,), {"y": 2, "z": 3}) == 6
    assert either.apply_async(add, (1, 2)).get(LONG) == 3
    for count in (0, 1, 2, 7, 100, 1001):
        for chunksize in (None, 1, 3, 1000):
            assert either.map(square, range(count), chunksize) == [square(x) for x in range(count)]
    assert either.map(square, iter([1, 2, 3])) == [1, 4, 9]
    assert either.starmap(add, [(1, 2), (3, 4), (5,)]) == [3, 7, 5]
    assert either.starmap_async(add, zip(range(5), range(5), strict=True)).get(LONG) == [0, 2, 4, 6, 8]
    for chunksize in (1, 4):
        assert list(either.imap(square, range(11), chunksize)) == [square(x) for x in range(11)]
        assert list(either.imap(square, (x for x in range(11)), chunksize)) == [square(x) for x in range(11)]
        assert sorted(either.imap_unordered(square, range(11), chunksize)) == [square(x) for x in range(11)]
    assert list(either.imap(square, [])) == []


def test_errors_are_the_standard_librarys(either: Any) -> None:
    with pytest.raises(KeyError) as raised:
        either.map(fail_at_three, range(10), 2)
    assert type(raised.value) is KeyError
    assert "fail_at_three" in str(raised.value.__cause__)
    result = either.apply_async(fail_at_three, (3,))
    result.wait(LONG)
    assert result.ready() and not result.successful()
    with pytest.raises(KeyError):
        result.get()
    iterator = either.imap(fail_at_three, range(6))
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(iterator)
    assert list(iterator) == [4, 5]
    iterator = either.imap(square, numbers_then_error())
    assert [next(iterator), next(iterator)] == [1, 4]
    with pytest.raises(ValueError, match="no more"):
        next(iterator)
    with pytest.raises(ValueError, match="Chunksize"):
        either.imap(square, [1], 0)


def test_callbacks_are_the_standard_librarys(either: Any) -> None:
    got: list[Any] = []
    either.apply_async(square, (3,), callback=got.append, error_callback=got.append).wait(LONG)
    either.map_async(square, [1, 2], callback=got.append).wait(LONG)
    either.apply_async(fail_at_three, (3,), callback=got.append, error_callback=got.append).wait(LONG)
    # The standard library says that a call is over before it has called back.
    deadline = time.monotonic() + LONG
    while len(got) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert got[:2] == [9, [1, 4]]
    assert isinstance(got[2], KeyError)


def test_a_pool_that_is_closed_takes_nothing(either: Any) -> None:
    with here.Pool(1) if isinstance(either, here.Pool) else multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(ValueError, match="still running"):
            pool.join()
        iterator = pool.imap(square, (x for x in range(50)))
        result = pool.map_async(square, range(1000), 1)
        pool.close()
        pool.join()
        assert result.get(0) == [square(x) for x in range(1000)]
        assert list(iterator) == [square(x) for x in range(50)]
        with pytest.raises(ValueError, match="Pool not running"):
            pool.apply(square, (1,))
    with pytest.raises(NotImplementedError):
        pool.__reduce__()


def test_a_result_that_is_not_there_times_out(pool: here.Pool, tmp_path: Path) -> None:
    result = pool.apply_async(wait_for_file, (str(tmp_path / "go"),))
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.01)
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    iterator = pool.imap(wait_for_file, [str(tmp_path / "go")])
    with pytest.raises(multiprocessing.TimeoutError):
        iterator.next(0.01)
    (tmp_path / "go").touch()
    assert result.get(LONG) and iterator.next(LONG)


def wait_for_file(path: str) -> bool:
    deadline = time.monotonic() + LONG
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.005)
    return os.path.exists(path)


def test_no_call_waits_behind_a_long_one(pool: here.Pool, tmp_path: Path) -> None:
    """A call that waits for a later one ends, as long as a process is free."""
    waits = pool.apply_async(wait_for_file, (str(tmp_path / "last"),))
    many = pool.map_async(square, range(50), 1)
    last = pool.apply_async(Path.touch, (tmp_path / "last",))
    assert many.get(LONG) == [square(x) for x in range(50)]
    last.get(LONG)
    assert waits.get(LONG)


def set_base(value: int) -> None:
    global base
    base = value


def add_to_base(value: int) -> int:
    return base + value  # type: ignore[name-defined,no-any-return]


def test_each_process_is_initialized() -> None:
    with here.Pool(2, set_base, (100,)) as pool, here.Pool(2, set_base, (200,)) as other:
        assert pool.map(add_to_base, range(20), 1) == list(range(100, 120))
        assert other.map(add_to_base, range(20), 1) == list(range(200, 220))
    with pytest.raises(TypeError):
        here.Pool(1, "no function")  # type: ignore[arg-type]


def fail() -> None:
    raise ValueError("no initialization")


def test_an_initializer_that_raises_fails_the_calls() -> None:
    with here.Pool(1, fail) as pool:
        for _ in range(2):
            with pytest.raises(ActorDiedError, match="no initialization"):
                pool.apply(square, (1,))


def test_variables_of_a_script_are_shared_by_its_functions(tmp_path: Path) -> None:
    """The initializer sets what the functions read, though they are sent one by one."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from mobula.multiprocessing import Pool

            base = None
            factor = 10

            def set_base(value):
                global base
                base = value

            def scale(x):
                return factor * x

            def work(x):
                return base + scale(x)

            def count():
                global factor
                factor += 1
                return factor

            with Pool(1, set_base, (5,)) as pool:
                print(pool.map(work, range(3)), pool.apply(count), pool.apply(count), pool.map(scale, [1]))
                print(pool.map(lambda x: x + base, range(3)))
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.stdout, done.returncode) == ("[5, 15, 25] 11 12 [12]\n[5, 6, 7]\n", 0), done.stderr


def pid(_: int) -> int:
    return os.getpid()


def test_processes_stay_and_are_replaced_after_so_many_calls() -> None:
    with here.Pool(1) as pool:
        assert len(set(pool.map(pid, range(10), 1))) == 1
    with here.Pool(1, maxtasksperchild=2) as pool:
        pids = pool.map(pid, range(6), 1)
        assert pids[0] == pids[1] and pids[2] == pids[3] and len(set(pids)) == 3
    with pytest.raises(ValueError):
        here.Pool(1, maxtasksperchild=0)
    with pytest.raises(ValueError):
        here.Pool(0)


def die(_: int) -> None:
    os._exit(1)


def test_a_process_that_dies_fails_its_call_alone() -> None:
    with here.Pool(2) as pool:
        before = set(pool.map(pid, range(20), 1))
        results = [pool.apply_async(die, (0,)) if i % 3 == 0 else pool.apply_async(pid, (i,)) for i in range(9)]
        for i, result in enumerate(results):
            if i % 3 == 0:
                with pytest.raises(ActorDiedError):
                    result.get(LONG)
            else:
                assert result.get(LONG) > 0
        assert not before & set(pool.map(pid, range(20), 1))


def die_at(x: int, bad: int) -> int:
    if x == bad:
        os._exit(1)
    return x


def test_pieces_that_wait_at_a_process_that_dies_are_done_elsewhere() -> None:
    """Pieces of many items wait behind others at a process."""
    with here.Pool(1) as pool:
        for bad in (0, 5_500, 19_999):
            pieces = pool.imap(functools.partial(die_at, bad=bad), range(20_000), 1000)
            for piece in range(20):
                if piece == bad // 1000:
                    with pytest.raises(ActorDiedError):
                        next(pieces)
                else:
                    assert [next(pieces) for _ in range(1000)] == list(range(piece * 1000, (piece + 1) * 1000))


def test_terminate_ends_what_runs(tmp_path: Path) -> None:
    pool = here.Pool(1)
    process = pool.apply(os.getpid)
    results = [pool.apply_async(wait_for_file, (str(tmp_path / "never"),)) for _ in range(3)]
    pool.terminate()
    pool.join()
    for result in results:
        with pytest.raises(RuntimeError, match="terminated"):
            result.get(LONG)
    wait_for_end(process)


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + LONG
    while os.path.exists(f"/proc/{process}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{process}")


def test_a_pool_that_is_forgotten_ends() -> None:
    pool = here.Pool(1)
    process, there = pool.apply(os.getpid), weakref.ref(pool)
    del pool
    gc.collect()
    assert there() is None
    wait_for_end(process)
    # A result that is still to come keeps its pool.
    assert here.Pool(1).apply_async(square, (3,)).get(LONG) == 9
    assert list(here.Pool(1).imap(square, range(5))) == [square(x) for x in range(5)]


def test_what_cannot_be_pickled_is_an_error(pool: here.Pool) -> None:
    with pytest.raises(TypeError):
        pool.map(square, [threading.Lock()])  # type: ignore[list-item]
    with pytest.raises((TypeError, RayTaskError)):
        pool.apply(threading.Lock)
    assert pool.apply(square, (2,)) == 4


class Counter:
    """A callable with a state."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: int) -> int:
        self.calls += x
        return self.calls


def test_the_state_of_a_callable_is_sent_with_each_chunk(either: Any) -> None:
    counter = Counter()
    assert either.map(counter, [1, 1, 1, 1], 2) == [1, 2, 1, 2]
    counter.calls = 10
    assert either.map(counter, [1, 1], 1) == [11, 11]


def test_arrays_are_cut_into_chunks_without_taking_them_apart(pool: here.Pool) -> None:
    numpy = pytest.importorskip("numpy")
    rows = numpy.arange(1200.0).reshape(300, 4)
    assert pool.map(numpy.sum, rows, 7) == list(rows.sum(axis=1))
    assert pool.map(float, rows[:, 0]) == list(rows[:, 0])
    doubled = pool.map(numpy.negative, [numpy.arange(100_000), numpy.arange(3)])
    assert [int(array[-1]) for array in doubled] == [-99_999, -2]


def test_many_threads_share_a_pool(pool: here.Pool) -> None:
    sums: list[int] = []

    def use(start: int) -> None:
        results = [pool.apply_async(square, (x,)) for x in range(start, start + 50)]
        sums.append(sum(pool.map(square, range(start, start + 50), 3)) - sum(r.get(LONG) for r in results))

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sums == [0] * 8


def in_a_worker() -> list[int]:
    with here.Pool(2) as pool:
        return pool.map(square, range(10))


def test_a_pool_can_be_made_in_a_worker() -> None:
    assert mobula.get(mobula.remote(in_a_worker).remote(), timeout=LONG) == [square(x) for x in range(10)]


def test_a_session_that_ends_fails_the_calls(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import time, mobula
        from mobula.multiprocessing import Pool
        pool = Pool(1)
        results = [pool.apply_async(time.sleep, (1000,)), pool.apply_async(time.sleep, (1000,))]
        mobula.shutdown()
        for result in results:
            try:
                result.get(30)
            except mobula.exceptions.RayError as error:
                print("failed")
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.stdout, done.returncode) == ("failed\nfailed\n", 0), done.stderr


def test_it_has_rays_name() -> None:
    from mobula.util.multiprocessing import Pool

    assert issubclass(Pool, here.Pool)
    with Pool(ray_remote_args={"num_cpus": 1}, processes=1) as pool:
        assert pool.map(square, [3]) == [9]


def test_mobula_does_not_import_it() -> None:
    script = (
        "import sys, mobula; names = {'multiprocessing', 'asyncio', 'joblib', 'concurrent.futures'}\n"
        "assert not names & sys.modules.keys(), names & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], timeout=LONG, check=True)


def test_an_error_of_a_dead_actor_is_no_dead_process(tmp_path: Path) -> None:
    # The class of the error is that of a process that has died.
    calls = tmp_path / "calls"

    def work(x: int) -> int:
        with calls.open("a") as file:
            file.write(f"{x}\n")
        if x == 1:
            raise ActorDiedError("of another actor")
        return x

    with here.Pool(2) as pool:
        results = [pool.apply_async(work, (x,)) for x in range(5)]
        for x, result in enumerate(results):
            if x == 1:
                with pytest.raises(ActorDiedError):
                    result.get(60)
            else:
                assert result.get(60) == x
    assert sorted(calls.read_text().split()) == ["0", "1", "2", "3", "4"]


def test_the_pool_of_rays_name_returns_errors_among_the_results() -> None:
    from mobula.util.multiprocessing import Pool, PoolTaskError

    def fail_at_two(x: int) -> int:
        if x == 2:
            raise KeyError(x)
        return x

    with Pool(2) as pool:
        for found in (pool.imap(fail_at_two, range(5), chunksize=2), pool.imap_unordered(fail_at_two, range(5))):
            results = list(found)
            (error,) = (result for result in results if isinstance(result, Exception))
            assert isinstance(error, PoolTaskError) and isinstance(error.underlying, KeyError)
            assert sorted(result for result in results if result is not error) == [0, 1, 3, 4]
        with pytest.raises(KeyError):
            pool.map(fail_at_two, range(5))


def test_the_pool_of_rays_name_is_there_with_its_processes(tmp_path: Path) -> None:
    from mobula.util.multiprocessing import Pool

    def begin(directory: Path) -> None:
        (directory / str(os.getpid())).touch()

    with Pool(3, initializer=begin, initargs=(tmp_path,)):
        assert len(list(tmp_path.iterdir())) == 3

    def fail() -> None:
        raise KeyError("begin")

    with pytest.raises(mobula.exceptions.RayActorError, match="KeyError"):
        Pool(1, initializer=fail)


def test_work_of_a_terminated_pool_fails_with_an_error_of_the_session() -> None:
    pool = here.Pool(1)
    result = pool.map_async(time.sleep, [3600])
    pool.terminate()
    pool.join()
    with pytest.raises(RuntimeError, match="terminated"):
        result.get(LONG)
    assert isinstance(result._error, mobula.exceptions.RayError)
