"""Functions and methods whose results come while they run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import ray

from programs import classes, raised, said


@ray.remote
def _numbers(n: int, fail_at: int = -1) -> Any:
    for i in range(n):
        if i == fail_at:
            raise ValueError(f"at {i}")
        yield i


@ray.remote
class _Actor:
    def numbers(self, n: int) -> Any:
        for i in range(n):  # noqa: UP028
            yield i

    def value(self) -> int:
        return 5


def a_generator() -> Any:
    found = _numbers.remote(5)
    return type(found).__name__, [ray.get(ref) for ref in found]


def items_are_references() -> Any:
    return [type(ref).__name__ for ref in _numbers.remote(2)]


def an_empty_generator() -> Any:
    return list(_numbers.remote(0))


def next_of_a_generator() -> Any:
    found = _numbers.remote(2)
    values = [ray.get(next(found)), ray.get(next(found))]
    return values, raised(lambda: next(found)), raised(lambda: next(found))


def a_generator_is_its_own_iterator() -> Any:
    found = _numbers.remote(2)
    return iter(found) is found


def an_error_is_the_last_item() -> Any:
    refs = list(_numbers.remote(5, fail_at=2))
    return len(refs), ray.get(refs[:2]), raised(lambda: ray.get(refs[2]))


def an_error_at_the_begin() -> Any:
    refs = list(_numbers.remote(5, fail_at=0))
    return [raised(lambda ref=ref: ray.get(ref)) for ref in refs]


def wrong_arguments() -> Any:
    return raised(lambda: _numbers.remote())


def items_come_while_it_runs() -> Any:
    @ray.remote
    def slow() -> Any:
        yield "first"
        time.sleep(60)
        yield "second"

    found = slow.remote()
    first = ray.get(next(found), timeout=30)
    ray.cancel(found)
    return first


def a_generator_of_arrays() -> Any:
    @ray.remote
    def arrays() -> Any:
        for i in range(3):
            yield np.full(50_000, i)

    return [int(ray.get(ref).sum()) for ref in arrays.remote()]


def a_generator_of_other_values() -> Any:
    @ray.remote
    def mixed() -> Any:
        yield None
        yield [1]
        yield "text"
        yield (1, 2)

    return [ray.get(ref) for ref in mixed.remote()]


def a_number_of_results() -> Any:
    return ray.get(_numbers.options(num_returns=3).remote(3))


def too_few_results() -> Any:
    refs = _numbers.options(num_returns=3).remote(2)
    return ray.get(refs[:2]), raised(lambda: ray.get(refs[2]))


def too_many_results() -> Any:
    refs = _numbers.options(num_returns=2).remote(3)
    return [raised(lambda ref=ref: ray.get(ref)) for ref in refs]


def one_result() -> Any:
    return raised(lambda: ray.get(_numbers.options(num_returns=1).remote(3)))


def the_option_streaming() -> Any:
    return [ray.get(ref) for ref in _numbers.options(num_returns="streaming").remote(3)]


def the_option_dynamic() -> Any:
    found = _numbers.options(num_returns="dynamic").remote(3)
    return type(found).__name__, [ray.get(ref) for ref in ray.get(found)]


def streaming_of_a_function_that_is_no_generator() -> Any:
    @ray.remote(num_returns="streaming")
    def listed() -> Any:
        return [1, 2]

    return [raised(lambda ref=ref: ray.get(ref)) for ref in listed.remote()]


def an_option_that_cannot_be() -> Any:
    return raised(lambda: _numbers.options(num_returns="other").remote(1)), raised(
        lambda: _numbers.options(num_returns=-2).remote(1)
    )


def a_generator_of_an_actor() -> Any:
    actor = _Actor.remote()
    return [ray.get(ref) for ref in actor.numbers.remote(3)], ray.get(actor.value.remote())


def two_generators_at_once() -> Any:
    one, two = _numbers.remote(3), _numbers.remote(3)
    return [(ray.get(a), ray.get(b)) for a, b in zip(one, two, strict=True)]


def an_asynchronous_loop() -> Any:
    async def read() -> list[int]:
        return [await ref async for ref in _numbers.remote(4)]

    return asyncio.run(read())


def an_asynchronous_loop_with_an_error() -> Any:
    async def read() -> Any:
        found = []
        async for ref in _numbers.remote(4, fail_at=2):
            try:
                found.append(await ref)
            except ValueError as error:
                found.append(classes(error))
        return found

    return asyncio.run(read())


def a_generator_within_a_call() -> Any:
    @ray.remote
    def total(n: int) -> int:
        return sum(ray.get(ref) for ref in _numbers.remote(n))

    return ray.get(total.remote(5))


def items_for_other_calls() -> Any:
    double = ray.remote(lambda x: 2 * x)
    return ray.get([double.remote(ref) for ref in _numbers.remote(3)])


def the_end_of_a_generator() -> Any:
    found = _numbers.remote(2)
    ref = found.completed()
    return type(ref).__name__, raised(lambda: ray.get(ref, timeout=60)).startswith("no error")


def wait_for_a_generator() -> Any:
    found = _numbers.remote(2)
    ready, rest = ray.wait([found], timeout=60)
    return ready == [found], rest


def wait_for_a_generator_and_a_reference() -> Any:
    found, ref = _numbers.remote(2), ray.put(1)
    ready, rest = ray.wait([found, ref], num_returns=2, timeout=60)
    return len(ready), rest


def get_of_a_generator() -> Any:
    return type(ray.get(_numbers.remote(2))).__name__


def a_generator_cannot_be_passed_on() -> Any:
    return raised(lambda: ray.remote(lambda x: 1).remote(_numbers.remote(1)))


def back_pressure(directory: str) -> Any:
    @ray.remote(_generator_backpressure_num_objects=2)
    def counted(path: str) -> Any:
        for i in range(20):
            with open(path, "a") as file:
                file.write(".")
            yield i

    found = counted.remote(f"{directory}/a")
    first = ray.get(next(found))
    time.sleep(0.3)
    with open(f"{directory}/a") as file:
        ahead = len(file.read())
    return first, ahead < 8, [ray.get(ref) for ref in found][-1]


def a_retried_generator(directory: str) -> Any:
    @ray.remote(max_retries=1, retry_exceptions=True)
    def sometimes(path: str) -> Any:
        yield 1
        with open(path, "a") as file:
            file.write(".")
        with open(path) as file:
            if len(file.read()) == 1:
                raise ValueError
        yield 2

    return [ray.get(ref) for ref in sometimes.remote(f"{directory}/a")]


def a_cancelled_generator() -> Any:
    @ray.remote
    def endless() -> Any:
        i = 0
        while True:
            yield i
            i += 1
            time.sleep(0.05)

    found = endless.remote()
    ray.get(next(found))
    ray.cancel(found)
    for ref in found:
        try:
            ray.get(ref)
        except ray.exceptions.TaskCancelledError:
            return "cancelled"
    return "over"


def the_text_of_a_stream_that_is_over() -> Any:
    found = _numbers.remote(0)
    return said(lambda: next(found)).split(":")[0]
