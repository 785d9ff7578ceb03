"""Calls that wait for each other in a circle: if this fails, a program hangs, or gets an error that is none."""

from __future__ import annotations

from typing import Any

import pytest

import mobula as ray
from mobula.exceptions import DeadlockError, GetTimeoutError

pytestmark = pytest.mark.usefixtures("session")


@ray.remote(num_cpus=0)
class Node:
    def __init__(self) -> None:
        self.next: Any = None

    def join(self, other: Any) -> None:
        self.next = other

    def around(self, steps: int) -> int:
        return 1 + int(ray.get(self.next.around.remote(steps - 1))) if steps else 0

    def around_by_wait(self) -> int:
        ready, _ = ray.wait([self.next.around_by_wait.remote()])
        return len(ready)

    def for_a_while(self) -> str:
        try:
            return str(ray.get(self.next.around.remote(0), timeout=0.7))
        except GetTimeoutError:
            return "gave up"


def ring(size: int) -> list[Any]:
    nodes = [Node.remote() for _ in range(size)]
    ray.get([node.join.remote(nodes[(number + 1) % size]) for number, node in enumerate(nodes)])
    return nodes


@pytest.mark.parametrize("size", [1, 3])
def test_actors_that_wait_for_each_other_get_an_error(size: int) -> None:
    nodes = ring(size)
    with pytest.raises(DeadlockError, match="calls wait for each other"):
        ray.get(nodes[0].around.remote(size))
    assert ray.get(nodes[0].around.remote(size - 1)) == size - 1
    ray.get([node.join.remote(None) for node in nodes])


def test_wait_without_a_timeout_gets_the_error_too() -> None:
    nodes = ring(1)
    with pytest.raises(DeadlockError, match="calls wait for each other"):
        ray.get(nodes[0].around_by_wait.remote())
    ray.get([node.join.remote(None) for node in nodes])


def test_a_wait_with_a_timeout_is_no_deadlock() -> None:
    nodes = ring(1)
    assert ray.get(nodes[0].for_a_while.remote()) == "gave up"
    ray.get(nodes[0].join.remote(None))
