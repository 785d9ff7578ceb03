"""The types that mypy and pyright see in programs. If this fails, an editor helps nobody, or warns of what is right.

`.ci/run python` has both check this file. No test runs it.
"""

from __future__ import annotations

from typing import Any, assert_type

import mobula
from mobula import ObjectRef


@mobula.remote
def add(x: int, y: int) -> int:
    return x + y


@mobula.remote(num_cpus=0.5, max_retries=1)
def name_of(number: int) -> str:
    return str(number)


class _Counter:
    def __init__(self, start: int = 0) -> None:
        self.number = start

    def increment(self, by: int = 1) -> int:
        self.number += by
        return self.number


# mypy does not look at decorators of classes, so a program that is checked by it calls them.
Counter = mobula.remote(_Counter)
Restarted = mobula.remote(max_restarts=1)(_Counter)


def functions() -> None:
    assert_type(add.remote(1, 2), ObjectRef[int])
    assert_type(mobula.get(add.remote(1, 2)), int)
    assert_type(mobula.get([add.remote(1, 2), add.remote(3, 4)]), list[int])
    assert_type(mobula.get(name_of.remote(1)), str)
    assert_type(mobula.get(name_of.options(num_cpus=1).remote(1)), str)
    # A reference stands for its value.
    assert_type(add.remote(add.remote(1, 2), 3), ObjectRef[int])
    assert_type(mobula.put("text"), ObjectRef[str])
    ready, rest = mobula.wait([add.remote(1, 2)], num_returns=1)
    assert_type(ready, list[ObjectRef[int]])
    assert_type(rest, list[ObjectRef[int]])


def actors() -> None:
    counter = Counter.remote(3)
    value: Any = mobula.get(counter.increment.remote(by=2))
    named = Restarted.options(name="named").remote()
    print(value, mobula.get(named.increment.remote()))


async def awaits() -> None:
    assert_type(await add.remote(1, 2), int)
