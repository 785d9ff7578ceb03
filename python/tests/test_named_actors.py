"""Handles that are found by a name know the methods of the actor. If this fails, ``get_actor`` gives wrong results.

Without the methods, ``num_returns=2`` gives one reference to a tuple, and a generator its first item alone.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import mobula as ray

pytestmark = pytest.mark.usefixtures("session")


class Worse(Exception):
    """An error of this file."""


@ray.remote(max_task_retries=2)
class Many:
    def __init__(self) -> None:
        self.tries = 0

    @ray.method(num_returns=2)
    def two(self, x: int, *, y: int = 1) -> tuple[int, int]:
        return x, y

    def count(self, end: int) -> Iterator[int]:
        yield from range(end)

    @ray.method(retry_exceptions=[Worse])
    def third(self) -> int:
        self.tries += 1
        if self.tries < 3:
            raise Worse
        return self.tries

    def hands_itself_out(self) -> Any:
        return ray.get_runtime_context().current_actor


@ray.remote
class Asynchronous:
    async def count(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number


def test_numbers_of_results() -> None:
    made = Many.options(name="two").remote()
    for found in (ray.get_actor("two"), ray.get(made.hands_itself_out.remote())):
        assert found == made and repr(found) == repr(made)
        refs = found.two.remote(3, y=4)
        assert ray.get(refs) == [3, 4]
        assert ray.get(found.two.options(num_returns=1).remote(3)) == (3, 1)


def test_generators() -> None:
    kept = Many.options(name="count").remote()
    found = ray.get_actor("count")
    assert [ray.get(ref) for ref in found.count.remote(3)] == [0, 1, 2]
    also_kept = Asynchronous.options(name="count without waiting").remote()

    async def collect() -> list[int]:
        return [await ref async for ref in ray.get_actor("count without waiting").count.remote(3)]

    assert asyncio.run(collect()) == [0, 1, 2]
    del kept, also_kept


def test_retries() -> None:
    made = Many.options(name="third").remote()
    assert ray.get(ray.get_actor("third").third.remote()) == 3
    ray.kill(made)
    made = Many.options(name="third again").remote()
    once = ray.get_actor("third again").third.options(max_task_retries=1)
    with pytest.raises(Worse):
        ray.get(once.remote())
    assert ray.get(made.third.remote()) == 3


def test_wrong_calls_fail_where_they_are_made() -> None:
    kept = Many.options(name="checked").remote()
    found = ray.get_actor("checked")
    with pytest.raises(AttributeError, match="'Many' object has no attribute 'five'"):
        found.five  # noqa: B018
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        found.two.remote()
    with pytest.raises(TypeError, match="z"):
        found.two.remote(1, z=2)
    assert "count" in dir(found)
    del kept


def test_found_handles_travel() -> None:
    kept = Many.options(name="travels").remote()

    @ray.remote
    def use(found: Any) -> Any:
        return ray.get(found.two.remote(1)), [ray.get(ref) for ref in ray.get_actor("travels").count.remote(2)]

    assert ray.get(use.remote(ray.get_actor("travels"))) == ([1, 1], [0, 1])
    del kept


def with_methods(count: int) -> Any:
    def method(self: Any, first: int, second: int = 0, *rest: int, third: int, **others: int) -> int:
        return first

    methods = {f"method_number_{number}": method for number in range(count)}
    methods["two"] = ray.method(num_returns=2)(lambda self, x: (x, x))
    return ray.remote(type("Large", (), methods))


def test_classes_with_many_methods() -> None:
    large = with_methods(1500).options(name="large").remote()
    found = ray.get_actor("large")
    assert ray.get(found.two.remote(3)) == [3, 3]
    assert ray.get(found.method_number_1499.remote(7, third=1)) == 7
    with pytest.raises(AttributeError):
        found.method_number_1500  # noqa: B018
    del large
    with pytest.raises(ValueError, match="so many methods"):
        with_methods(30_000).options(name="too large").remote()


DRIVER = """
import sys
import mobula as ray

ray.init(address=sys.argv[1])
if sys.argv[2] == "keep":
    class Own(Exception):
        pass

    @ray.remote(max_task_retries=1)
    class Kept:
        tries = 0

        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

        def count(self):
            yield from range(3)

        @ray.method(retry_exceptions=[Own])
        def second(self):
            self.tries += 1
            if self.tries == 1:
                raise Own
            return self.tries

    ray.get(Kept.options(name="kept", lifetime="detached").remote().two.remote())
else:
    kept = ray.get_actor("kept")
    print(ray.get(kept.two.remote()), [ray.get(ref) for ref in kept.count.remote()], ray.get(kept.second.remote()))
"""


def test_detached_actors_of_another_program(tmp_path: Path) -> None:
    environment = {**os.environ, "MOBULA_SESSION_DIR": str(tmp_path)}

    def run(*arguments: str) -> str:
        run = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, timeout=120, check=True, env=environment)
        return run.stdout

    size = str(64 << 20)
    address = run(sys.executable, "-m", "mobula", "start", "--num-cpus", "2", "--object-store-memory", size).strip()
    try:
        run(sys.executable, "-c", DRIVER, address, "keep")
        assert run(sys.executable, "-c", DRIVER, address, "use") == "[1, 2] [0, 1, 2] 2\n"
    finally:
        run(sys.executable, "-m", "mobula", "stop", address)
