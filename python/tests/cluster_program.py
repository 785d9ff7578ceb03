"""A program that runs on this package and on a cluster of Ray: ``MOBULA_ADDRESS=ray:auto``. See test_cluster.py."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import numpy as np

import mobula as ray
from mobula.exceptions import GetTimeoutError, RayActorError, RayTaskError
from mobula.util import ActorPool


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote(num_returns=2)
def divide(a: int, b: int) -> tuple[int, int]:
    return divmod(a, b)


@ray.remote
def total(n: int) -> int:
    return sum(ray.get([square.remote(i) for i in range(n)]))


@ray.remote(max_retries=0)
def fail() -> None:
    raise KeyError("no such key")


@ray.remote
def rest_a_while() -> None:
    time.sleep(1)


@ray.remote
def numbers(n: int) -> Any:
    for i in range(n):  # noqa: UP028
        yield i


@ray.remote
class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    @ray.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.value, -self.value

    async def later(self) -> int:
        await asyncio.sleep(0)
        return self.value


def main() -> None:
    ray.init(num_cpus=4, log_to_driver=False)
    print(ray.get([square.remote(i) for i in range(5)]), ray.get(total.remote(4)))
    print(ray.get(divide.remote(17, 5)), ray.get(square.options(num_cpus=0.5).remote(ray.put(3))))
    print(ray.get(ray.put({"a": [1, None]})), int(ray.get(ray.put(np.arange(1000))).sum()))
    ready, rest = ray.wait([square.remote(i) for i in range(3)], num_returns=3)
    print(len(ready), rest, isinstance(ready[0], ray.ObjectRef))
    # A client of Ray (`ray://`) gets no streams.
    if "WITHOUT_STREAMS" not in os.environ:
        print([ray.get(ref) for ref in numbers.remote(3)])

    counter = Counter.options(name="counter").remote(10)
    print(ray.get(counter.add.remote(5)), ray.get(counter.pair.remote()), ray.get(counter.later.remote()))
    print(ray.get(ray.get_actor("counter").add.remote(1)))
    pool = ActorPool([Counter.remote(i) for i in range(2)])
    print(sorted(pool.map(lambda actor, n: actor.add.remote(n), [10, 20])))
    try:
        ray.get(fail.remote())
    except KeyError as error:
        print(isinstance(error, RayTaskError), isinstance(error.cause, KeyError), "no such key" in str(error))
    ray.kill(counter)
    try:
        ray.get(counter.add.remote(1))
    except RayActorError as error:
        print(type(error).__name__)
    try:
        ray.get(rest_a_while.remote(), timeout=0)
    except GetTimeoutError:
        print("late")

    async def wait() -> list[int]:
        return await asyncio.gather(square.remote(2), square.remote(3))

    print(asyncio.run(wait()))
    node = square.bind(square.bind(2))
    print(ray.get(node.execute()), ray.cluster_resources()["CPU"], ray.is_initialized())
    ray.shutdown()
    print(ray.is_initialized())


if __name__ == "__main__":
    main()
