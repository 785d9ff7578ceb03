"""Measure this package beside Ray and the standard library, each in processes of its own, in turn.

``python python/benches/compare.py`` prints a table of medians over the rounds, with the least and the most. Rivals that
are not installed are left out: ``pip install ray==2.60.0`` brings the one. A row that a rival has no counterpart of is
empty.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SYSTEMS = ("mobula", "ray", "multiprocessing")


def per_call(work: Callable[[], Any], times: int) -> float:
    """The median time of one call in seconds, over 5 loops."""
    work()
    gc.collect()
    loops = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times):
            work()
        loops.append((time.perf_counter() - began) / times)
    return statistics.median(loops)


def of_ray(name: str) -> Iterator[tuple[str, float]]:
    """The rows of a package with Ray's interface."""
    fast = name == "mobula"
    began = time.perf_counter()
    ray: Any = importlib.import_module(name)
    ray.init(num_cpus=2, **({} if fast else {"include_dashboard": False, "log_to_driver": False}))

    @ray.remote
    def same(value: Any) -> Any:
        return value

    @ray.remote
    class Actor:
        def same(self, value: Any) -> Any:
            return value

        def length(self, array: Any) -> int:
            return len(array)

    ray.get(same.remote(1))
    yield "import, init and first task", time.perf_counter() - began
    times = 2000 if fast else 100
    actor = Actor.remote()
    one, small, large = ray.put(1), np.zeros(10), np.zeros(100_000_000 // 8)
    yield "put an int", per_call(lambda: ray.put(1), times)
    yield "get an int", per_call(lambda: ray.get(one), times)
    yield "task, call and get", per_call(lambda: ray.get(same.remote(1)), times)
    yield "actor call and get", per_call(lambda: ray.get(actor.same.remote(1)), times)
    many = 1000
    yield "tasks, many at once, each", per_call(lambda: ray.get([same.remote(1) for _ in range(many)]), 3) / many
    yield (
        "actor calls, many at once, each",
        per_call(lambda: ray.get([actor.same.remote(1) for _ in range(many)]), 3) / many,
    )
    yield "80-byte array through a task", per_call(lambda: ray.get(same.remote(small)), times)
    yield "put a 100 MB array", per_call(lambda: ray.put(large), 5)
    stored = ray.put(large)
    yield "get a 100 MB array", per_call(lambda: ray.get(stored), times)
    yield "stored 100 MB array to an actor", per_call(lambda: ray.get(actor.length.remote(stored)), times // 10)
    ray.shutdown()


def _same(value: Any) -> Any:
    return value


def of_multiprocessing() -> Iterator[tuple[str, float]]:
    """The rows that the standard library has."""
    began = time.perf_counter()
    with multiprocessing.Pool(2) as pool:
        pool.apply(_same, (1,))
        yield "import, init and first task", time.perf_counter() - began
        yield "task, call and get", per_call(lambda: pool.apply(_same, (1,)), 500)
        many = 1000
        yield "tasks, many at once, each", per_call(lambda: pool.map(_same, range(many), chunksize=1), 3) / many
        small, large = np.zeros(10), np.zeros(100_000_000 // 8)
        yield "80-byte array through a task", per_call(lambda: pool.apply(_same, (small,)), 500)
        yield "put a 100 MB array", per_call(large.copy, 5)


def shown(seconds: float) -> str:
    """A time with three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def main() -> None:
    """Measure all that is installed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--system", choices=SYSTEMS, help="measure this one here, and print its rows as JSON")
    options = parser.parse_args()
    if options.system:
        rows = of_multiprocessing() if options.system == "multiprocessing" else of_ray(options.system)
        print(json.dumps(dict(rows)))
        return
    systems = [system for system in SYSTEMS if importlib.util.find_spec(system)]
    found: dict[str, dict[str, list[float]]] = {system: {} for system in systems}
    for number in range(options.rounds):
        for system in systems:
            print(f"round {number + 1}: {system}", file=sys.stderr)
            command = [sys.executable, __file__, "--system", system]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            for row, seconds in json.loads(output.splitlines()[-1]).items():
                found[system].setdefault(row, []).append(seconds)
    print(f"| | {' | '.join(systems)} |")
    print(f"|---|{'---|' * len(systems)}")
    for row in found[systems[0]]:
        cells = [row]
        for system in systems:
            times = found[system].get(row)
            cells.append(
                f"{shown(statistics.median(times))} ({shown(min(times))} to {shown(max(times))})" if times else ""
            )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
