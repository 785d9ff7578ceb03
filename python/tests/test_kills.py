"""Workers and actors that are killed at random. If this fails, a program loses calls, or gets the results of others."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import mobula as ray

pytestmark = pytest.mark.usefixtures("fresh")

# Each has a kill in two of three cases: `MOBULA_ROUNDS=1500` kills a thousand times.
ROUNDS = int(os.environ.get("MOBULA_ROUNDS", "60"))


@ray.remote(max_retries=-1)
def double(x: int, pause: float) -> int:
    time.sleep(pause)
    return 2 * x


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Adder:
    async def add(self, x: int) -> int:
        return x + 1

    def plain(self, x: int) -> int:
        return x + 1


def workers() -> list[int]:
    """The workers and actors of this process."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        # Processes come and go.
        with contextlib.suppress(OSError):
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"mobula._worker" in (directory / "cmdline").read_bytes():
                found.append(int(directory.name))
    return found


def test_every_call_has_its_result_while_processes_are_killed() -> None:
    seed = int(os.environ.get("MOBULA_SEED", random.randrange(1 << 30)))
    print(f"MOBULA_SEED={seed}")
    chance = random.Random(seed)
    ray.init(num_cpus=2)
    adders = [Adder.remote() for _ in range(2)]
    kills = 0
    for _ in range(ROUNDS):
        refs: list[Any] = [double.remote(i, chance.random() / 1000) for i in range(20)]
        refs += [adders[i % 2].add.remote(i) for i in range(20)]
        refs += [adders[i % 2].plain.remote(i) for i in range(20)]
        if chance.random() < 0.7:
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(workers()), signal.SIGKILL)
                kills += 1
        expected = [2 * i for i in range(20)] + [i + 1 for i in range(20)] * 2
        assert ray.get(refs, timeout=120) == expected
    print(f"{kills} processes were killed")
    assert kills > 0


@ray.remote(max_restarts=-1)
class DiesOnce:
    @ray.method(max_task_retries=1)
    def seven(self, marker: Path) -> int:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 7


def test_a_method_has_a_number_of_retries_of_its_own(tmp_path: Path) -> None:
    actor = DiesOnce.options(name="dies once").remote()
    assert ray.get(actor.seven.remote(tmp_path / "one"), timeout=60) == 7
    # Where the actor is found by its name, too.
    assert ray.get(ray.get_actor("dies once").seven.remote(tmp_path / "two"), timeout=60) == 7
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.seven.options(max_task_retries=0).remote(tmp_path / "three"), timeout=60)
    # The number of the method is in place of the actor's.
    generous = DiesOnce.options(max_task_retries=5).remote()
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(generous.seven.options(max_task_retries=0).remote(tmp_path / "four"), timeout=60)
