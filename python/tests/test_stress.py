"""Many calls, threads and collections of garbage at once: references that are dropped by the collector would block or
crash the program, and memory would grow with each call.

``MOBULA_CALLS=1000000`` makes more calls.
"""

from __future__ import annotations

import gc
import os
import random
import threading
from typing import Any

import numpy as np
import pytest

import mobula as ray

CALLS = int(os.environ.get("MOBULA_CALLS", "100000"))
SEED = int(os.environ.get("MOBULA_SEED", str(random.randrange(2**32))))


@ray.remote
def same(value: Any) -> Any:
    return value


@ray.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, value: Any) -> int:
        self.kept = [value]
        return os.getpid()

    def pid(self) -> int:
        return os.getpid()


class Cycle:
    """Refers to itself, so that the collector alone frees it, on whichever thread it runs."""

    def __init__(self, held: Any) -> None:
        self.itself, self.held = self, held


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_calls_leave_nothing_behind(session: None) -> None:
    keeper = Keeper.remote()
    worker = ray.get(keeper.pid.remote())

    def calls(count: int) -> None:
        for _ in range(count // 1000):
            refs = [keeper.keep.remote(number) for number in range(500)]
            refs += [same.remote((number, "text")) for number in range(490)]
            refs += [same.remote(np.arange(2000)) for _ in range(10)]
            ray.get(refs)

    def measured() -> tuple[int, int, int, int, int]:
        gc.collect()
        own = os.getpid()
        return len(gc.get_objects()), resident_bytes(own), resident_bytes(worker), descriptors(own), descriptors(worker)

    calls(10_000)
    before = measured()
    calls(CALLS)
    objects, own, of_worker, own_descriptors, its_descriptors = (
        after - first for first, after in zip(before, measured(), strict=True)
    )
    assert objects < 1000, f"{objects} objects of Python stay"
    # A hundred bytes a call would be ten megabytes.
    assert own < 8 << 20 and of_worker < 8 << 20, f"{own} bytes stay here, {of_worker} in the worker"
    assert max(own_descriptors, its_descriptors) < 10


def test_garbage_with_references_is_collected_on_all_threads(session: None) -> None:
    print(f"MOBULA_SEED={SEED}")
    failed: list[BaseException] = []
    stop = threading.Event()

    def work(number: int) -> None:
        choose = random.Random(SEED + number)
        try:
            for round in range(25):
                array = np.full(5000, float(round))
                stored = ray.put(array)
                Cycle([stored, ray.get(stored)])
                Cycle(same.remote(stored))
                Cycle([same.remote([Cycle]), ray.put([stored])])
                if round % 10 == 0:
                    Cycle(Keeper.remote())
                future = same.remote(round).future()
                found = ray.get(same.remote([stored]))
                assert (ray.get(found[0]) == array).all() and future.result(60) == round
                if choose.random() < 0.3:
                    gc.collect(choose.randrange(3))
        except BaseException as error:
            failed.append(error)

    def collect() -> None:
        while not stop.is_set():
            gc.collect()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    collector = threading.Thread(target=collect)
    for thread in [*threads, collector]:
        thread.start()
    for thread in threads:
        thread.join(180)
    stop.set()
    collector.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"
    assert not failed, failed


def test_a_worker_does_not_keep_every_function_that_it_ran(fresh: None) -> None:
    ray.init(num_cpus=1)
    keeper = Keeper.remote()
    pid = ray.get(keeper.pid.remote())

    @ray.remote
    def about(wanted: int) -> bool:
        try:
            os.kill(wanted, 0)
        except ProcessLookupError:
            return False
        return True

    def call_what_captures(captured: Any) -> None:
        assert ray.get(ray.remote(lambda: captured is not None).remote())

    call_what_captures(keeper)
    del keeper
    gc.collect()
    assert ray.get(about.remote(pid)), "the function that the worker keeps has a handle"
    for number in range(300):
        assert ray.get(ray.remote(lambda number=number: number).remote()) == number
    for _ in range(6000):
        if not ray.get(about.remote(pid)):
            return
        threading.Event().wait(0.01)
    pytest.fail("the actor lives on by a function that is gone")
