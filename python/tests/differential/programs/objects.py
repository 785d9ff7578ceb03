"""``put``, ``get``, ``wait``, and references."""

from __future__ import annotations

import concurrent.futures
import copy
import time
from typing import Any

import ray

from programs import raised, said, until


@ray.remote
def _echo(value: Any = None) -> Any:
    return value


@ray.remote
def _sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@ray.remote(num_cpus=0)
class _Gate:
    """Is opened once, and calls wait for it."""

    def __init__(self) -> None:
        import asyncio

        self._open = asyncio.Event()

    async def open(self) -> None:
        self._open.set()

    async def pass_through(self, value: Any) -> Any:
        await self._open.wait()
        return value


def put_and_get() -> Any:
    return ray.get(ray.put({"a": [1, 2.5, None]}))


def get_a_list_in_order() -> Any:
    return ray.get([ray.put(i) for i in range(10)])


def get_a_mixture_of_puts_and_calls() -> Any:
    return ray.get([ray.put(1), _echo.remote(2), ray.put(3)])


def get_nothing() -> Any:
    return ray.get([])


def get_a_tuple() -> Any:
    return said(lambda: ray.get((ray.put(1), ray.put(2))))


def get_one_twice() -> Any:
    ref = ray.put([1])
    one, other = ray.get([ref, ref])
    return one == other


def each_get_gives_a_copy() -> Any:
    ref = ray.put([1])
    ray.get(ref).append(2)
    return ray.get(ref)


def put_takes_the_value_as_it_is() -> Any:
    value = {"a": 1}
    ref = ray.put(value)
    value["a"] = 2
    return ray.get(ref)


def put_of_a_reference() -> Any:
    return said(lambda: ray.put(ray.put(1)))


def put_of_a_list_of_references() -> Any:
    refs = ray.get(ray.put([ray.put(1), ray.put(2)]))
    return [type(ref).__name__ for ref in refs], ray.get(refs)


def put_of_nested_references() -> Any:
    value = {"a": {"b": (ray.put(1), [ray.put(2)])}}
    found = ray.get(ray.put(value))
    return ray.get(found["a"]["b"][0]), ray.get(found["a"]["b"][1])


def get_of_other_things() -> Any:
    return [raised(lambda thing=thing: ray.get(thing)) for thing in (1, "a", None, {"a": 1})]


def the_text_for_get_of_a_number() -> Any:
    return said(lambda: ray.get(1))


def get_of_a_list_of_other_things() -> Any:
    return [raised(lambda thing=thing: ray.get(thing)) for thing in ([1], [ray.put(1), None])]


def get_in_time() -> Any:
    return ray.get(_echo.remote(1), timeout=60)


def get_too_late() -> Any:
    gate = _Gate.remote()
    ref = gate.pass_through.remote(5)
    first = raised(lambda: ray.get(ref, timeout=0.2))
    ray.get(gate.open.remote())
    return first, ray.get(ref)


def get_with_no_time() -> Any:
    gate = _Gate.remote()
    return raised(lambda: ray.get(gate.pass_through.remote(5), timeout=0))


def get_a_value_that_is_there_with_no_time() -> Any:
    return ray.get(ray.put(1), timeout=0)


def get_with_a_negative_time() -> Any:
    return raised(lambda: ray.get(ray.put(1), timeout=-2))


def one_of_a_list_is_late() -> Any:
    gate = _Gate.remote()
    return raised(lambda: ray.get([ray.put(1), gate.pass_through.remote(5)], timeout=0.2))


def references_are_equal_and_hashed_by_their_object() -> Any:
    a, b = ray.put(1), ray.put(1)
    again = ray.get(ray.put([a]))[0]
    return a == a, a == b, a == again, hash(a) == hash(again), len({a, b, again}), a != b, a == 1


def references_as_keys() -> Any:
    refs = [ray.put(i) for i in range(3)]
    values = {ref: i for i, ref in enumerate(refs)}
    return [values[ref] for ref in refs]


def a_reference_as_text() -> Any:
    ref = ray.put(1)
    return repr(ref) == f"ObjectRef({ref.hex()})", str(ref) == repr(ref), ref.hex() == ref.binary().hex()


def references_have_different_ids() -> Any:
    return len({ray.put(None).hex() for _ in range(100)})


def a_reference_has_a_type() -> Any:
    ref = _echo.remote(1)
    return isinstance(ref, ray.ObjectRef), type(ref).__name__, isinstance(ref, ray.ObjectRef[int].__origin__)


def a_reference_cannot_be_iterated_or_called() -> Any:
    ref = ray.put([1])
    return raised(lambda: list(ref)), raised(lambda: ref()), raised(lambda: ref[0]), raised(lambda: ref + 1)


def a_reference_is_true() -> Any:
    return bool(ray.put(0))


def references_can_be_copied() -> Any:
    ref = ray.put(4)
    return copy.copy(ref) == ref, ray.get(copy.deepcopy([ref]))


def references_are_passed_through_calls() -> Any:
    ref = ray.put("deep")
    return ray.get(ray.get(_echo.remote([ref]))[0]), ray.get(ray.get(_echo.remote({"k": [ref]}))["k"][0])


def a_value_outlives_the_program_that_put_it() -> Any:
    @ray.remote
    def make() -> Any:
        return [ray.put("from a worker")]

    return ray.get(ray.get(make.remote())[0])


def references_outlive_their_names() -> Any:
    held = ray.put([ray.put([ray.put("inner")])])
    return ray.get(ray.get(ray.get(held)[0])[0])


def wait_for_one() -> Any:
    ready, rest = ray.wait([_echo.remote(1)])
    return ray.get(ready), rest


def wait_for_all() -> Any:
    refs = [_echo.remote(i) for i in range(5)]
    ready, rest = ray.wait(refs, num_returns=5)
    return ready == refs, rest


def wait_gives_as_many_as_wanted() -> Any:
    refs = [ray.put(i) for i in range(5)]
    ready, rest = ray.wait(refs, num_returns=2)
    return len(ready), len(rest), {*ready, *rest} == {*refs}


def wait_gives_one_by_default() -> Any:
    refs = [ray.put(i) for i in range(3)]
    ready, rest = ray.wait(refs)
    return len(ready), len(rest)


def wait_keeps_the_order() -> Any:
    gate = _Gate.remote()
    refs = [ray.put(0), gate.pass_through.remote(1), ray.put(2), gate.pass_through.remote(3), ray.put(4)]
    ready, rest = ray.wait(refs, num_returns=3)
    return ready == [refs[0], refs[2], refs[4]], rest == [refs[1], refs[3]]


def wait_in_vain() -> Any:
    gate = _Gate.remote()
    refs = [gate.pass_through.remote(i) for i in range(3)]
    ready, rest = ray.wait(refs, num_returns=2, timeout=0.2)
    return ready, rest == refs


def wait_with_no_time() -> Any:
    gate = _Gate.remote()
    refs = [ray.put(0), gate.pass_through.remote(1)]
    ready, rest = ray.wait(refs, num_returns=2, timeout=0)
    return ready == refs[:1], rest == refs[1:]


def wait_for_the_first() -> Any:
    gate = _Gate.remote()
    late, early = gate.pass_through.remote("late"), _echo.remote("early")
    ready, rest = ray.wait([late, early], num_returns=1)
    return ray.get(ready), rest == [late]


def an_error_is_ready() -> Any:
    def fail() -> None:
        raise ValueError

    ready, rest = ray.wait([ray.remote(fail).remote()], timeout=60)
    return len(ready), len(rest)


def wait_for_nothing() -> Any:
    return said(lambda: ray.wait([]))


def wait_for_the_same_twice() -> Any:
    ref = ray.put(1)
    return said(lambda: ray.wait([ref, ref]))


def wait_for_too_many() -> Any:
    return said(lambda: ray.wait([ray.put(1)], num_returns=2))


def wait_for_none_or_fewer() -> Any:
    return said(lambda: ray.wait([ray.put(1)], num_returns=0)), said(lambda: ray.wait([ray.put(1)], num_returns=-1))


def wait_for_a_negative_time() -> Any:
    return said(lambda: ray.wait([ray.put(1)], timeout=-1))


def wait_for_one_that_is_no_list() -> Any:
    return said(lambda: ray.wait(ray.put(1)))


def wait_for_a_tuple() -> Any:
    return raised(lambda: ray.wait((ray.put(1),)))


def wait_for_numbers() -> Any:
    return said(lambda: ray.wait([1]))


def wait_with_a_position() -> Any:
    return raised(lambda: ray.wait([ray.put(1)], 1))


def wait_in_a_loop() -> Any:
    refs = [_sleep.remote(0.01 * (5 - i), i) for i in range(5)]
    found = []
    while refs:
        ready, refs = ray.wait(refs)
        found += ray.get(ready)
    return sorted(found)


def wait_accepts_fetch_local() -> Any:
    return len(ray.wait([ray.put(1)], fetch_local=False)[0])


def wait_within_a_call() -> Any:
    @ray.remote
    def inner() -> Any:
        ready, rest = ray.wait([_echo.remote(1), _echo.remote(2)], num_returns=2)
        return ray.get(ready), rest

    return ray.get(inner.remote())


def a_future_of_a_reference() -> Any:
    future = _echo.remote(9).future()
    return isinstance(future, concurrent.futures.Future), future.result(timeout=60), future.done()


def a_future_with_an_error() -> Any:
    def fail() -> None:
        raise KeyError("k")

    return raised(lambda: ray.remote(fail).remote().future().result(timeout=60))


def a_callback_of_a_future() -> Any:
    found: list[Any] = []
    _echo.remote(3).future().add_done_callback(lambda future: found.append(future.result()))
    return until(lambda: bool(found)), found
