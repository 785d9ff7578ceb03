"""Calls with ``timeout`` and ``deadline``: if these fail, work goes on although nobody may wait for it any more.

There is one CPU, so a call that were not cancelled would hold up all that follow.
"""

from __future__ import annotations

import datetime
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mobula as ray

# Long enough for a call that does nothing, also on a busy machine; and so short that a test can wait for its end.
SHORT, LONG = 0.1, 60.0


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    ray.init(num_cpus=1)
    yield
    ray.shutdown()


def until_cancelled() -> None:
    while not ray.get_runtime_context().is_canceled():
        time.sleep(0.001)


@ray.remote(timeout=SHORT)
def limited() -> None:
    until_cancelled()


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote
class Limited:
    @ray.method(timeout=SHORT)
    def runs(self) -> None:
        until_cancelled()

    @ray.method(timeout=datetime.timedelta(seconds=SHORT))
    def items(self) -> Iterator[int]:
        yield 1
        until_cancelled()

    def twice(self, x: int) -> int:
        return 2 * x


def is_timed_out(reference: ray.ObjectRef[Any], text: str) -> None:
    with pytest.raises(ray.exceptions.TaskTimedOutError, match=text) as raised:
        ray.get(reference, timeout=LONG)
    assert isinstance(raised.value, TimeoutError) and not isinstance(raised.value, ray.exceptions.GetTimeoutError)


def test_a_call_that_runs_too_long_is_cancelled() -> None:
    reference = limited.remote()
    is_timed_out(reference, "limited ran for longer than its timeout of 100ms")
    is_timed_out(square.remote(reference), "limited")
    longer = limited.options(timeout=datetime.timedelta(milliseconds=150)).remote()
    is_timed_out(longer, "timeout of 150ms")
    is_timed_out(limited.options(timeout=LONG, deadline=SHORT).remote(), "not over at its deadline, 100ms")


def test_a_call_in_time_gives_its_result() -> None:
    assert ray.get(square.options(timeout=LONG, deadline=LONG).remote(3)) == 9
    assert ray.get(square.options(timeout=1e300, deadline=float("inf")).remote(3)) == 9
    assert ray.get(square.options(timeout=None).remote(3)) == 9


def test_methods_have_limits_of_their_own() -> None:
    actor = Limited.remote()
    is_timed_out(actor.runs.remote(), "runs ran for longer than its timeout of 100ms")
    is_timed_out(actor.runs.options(timeout=0.15).remote(), "timeout of 150ms")
    is_timed_out(actor.runs.options(timeout=LONG, deadline=SHORT).remote(), "deadline, 100ms")
    assert ray.get(actor.twice.options(timeout=LONG).remote(4)) == 8
    without = actor.runs.options(timeout=None).remote()
    ray.cancel(without)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(without, timeout=LONG)
    first, second = actor.items.remote()
    assert ray.get(first) == 1
    is_timed_out(second, "items")


def test_limits_come_along_with_a_handle() -> None:
    name = "limited"
    actor = Limited.options(name=name).remote()
    is_timed_out(ray.get_actor(name).runs.remote(), "runs")

    @ray.remote
    def calls(handle: Any) -> str:
        try:
            ray.get(handle.runs.remote())
        except ray.exceptions.TaskTimedOutError as error:
            return str(error)
        return "in time"

    assert "runs ran for longer than its timeout of 100ms" in ray.get(calls.remote(actor))


def test_a_timed_out_error_travels() -> None:
    error = ray.exceptions.TaskTimedOutError("too late")
    assert str(pickle.loads(pickle.dumps(error))) == "too late"


@pytest.mark.parametrize("option", ["timeout", "deadline"])
def test_invalid_limits_are_errors(option: str) -> None:
    for value in ["1", True, [1]]:
        with pytest.raises(TypeError, match=f"{option} cannot be .*: a number of seconds"):
            square.options(**{option: value})
        with pytest.raises(TypeError, match=f"{option} cannot be"):
            ray.method(**{option: value})
    for value in [0, -1.0, float("nan"), datetime.timedelta(0)]:
        with pytest.raises(ValueError, match=f"{option} cannot be .*: more than 0 seconds"):
            square.options(**{option: value})
    with pytest.raises(ValueError, match=option):
        Limited.options(**{option: 1})
