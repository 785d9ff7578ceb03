"""Remote functions: how they are defined and called, their arguments and their results."""

from __future__ import annotations

import functools
from typing import Any

import ray

from programs import raised, said

_offset = 10


@ray.remote
def _add(a: int, b: int = 1, *rest: int, scale: int = 1, **named: int) -> int:
    """Add numbers."""
    return (a + b + sum(rest) + sum(named.values())) * scale


@ray.remote
def _echo(value: Any = None) -> Any:
    return value


def one_call() -> Any:
    return ray.get(_add.remote(1, 2))


def arguments_by_position_and_name() -> Any:
    calls = [_add.remote(1), _add.remote(1, 2, 3, 4), _add.remote(b=5, a=1), _add.remote(1, scale=3, x=7, y=8)]
    return ray.get(calls)


def many_calls_in_order() -> Any:
    return ray.get([_echo.remote(i) for i in range(50)])


def the_default_argument() -> Any:
    return ray.get(_echo.remote())


def references_as_arguments_become_values() -> Any:
    one = _add.remote(0)
    return ray.get(_add.remote(one, ray.put(5), scale=_echo.remote(2)))


def references_within_values_stay_references() -> Any:
    @ray.remote
    def look(values: list[Any], named: dict[str, Any]) -> Any:
        kinds = [type(value).__name__ for value in (*values, *named.values())]
        return kinds, ray.get([*values, *named.values()])

    return ray.get(look.remote([ray.put(1), _echo.remote(2)], {"a": ray.put(3)}))


def a_chain_of_calls() -> Any:
    ref = ray.put(0)
    for _ in range(20):
        ref = _add.remote(ref)
    return ray.get(ref)


def a_tree_of_calls() -> Any:
    @ray.remote
    def total(*parts: int) -> int:
        return sum(parts)

    leaves = [_echo.remote(i) for i in range(16)]
    while len(leaves) > 1:
        leaves = [total.remote(*leaves[i : i + 4]) for i in range(0, len(leaves), 4)]
    return ray.get(leaves)


def calls_within_calls() -> Any:
    @ray.remote
    def outer(n: int) -> list[int]:
        return ray.get([_add.remote(i, n) for i in range(3)])

    return ray.get(outer.remote(10))


def recursion() -> Any:
    @ray.remote
    def factorial(n: int) -> int:
        return 1 if n <= 1 else n * ray.get(factorial.remote(n - 1))

    return ray.get(factorial.remote(6))


def a_call_that_returns_a_reference() -> Any:
    @ray.remote
    def outer() -> Any:
        return _add.remote(4, 5)

    inner = ray.get(outer.remote())
    return type(inner).__name__, ray.get(inner)


def a_reference_to_a_reference_is_resolved_once() -> Any:
    @ray.remote
    def outer() -> Any:
        return ray.put(7)

    @ray.remote
    def look(value: Any) -> str:
        return type(value).__name__

    return ray.get(look.remote(outer.remote()))


def closures_and_globals() -> Any:
    factor = 3

    @ray.remote
    def scaled(x: int) -> int:
        return x * factor + _offset

    return ray.get(scaled.remote(4))


def what_a_closure_captures_is_fixed_at_the_first_call() -> Any:
    value = [1]

    @ray.remote
    def look() -> list[int]:
        return value

    first = ray.get(look.remote())
    value.append(2)
    return first, ray.get(look.remote())


def the_same_function_twice_is_two_functions() -> Any:
    def make(n: int) -> Any:
        @ray.remote
        def inner() -> int:
            return n

        return inner

    return ray.get([make(i).remote() for i in range(5)])


def a_lambda() -> Any:
    return ray.get(ray.remote(lambda x, y=2: x**y).remote(5))


def remote_with_options_on_a_lambda() -> Any:
    return ray.get(ray.remote(num_cpus=1, num_returns=2)(lambda: (1, 2)).remote())


def a_static_method() -> Any:
    class Box:
        @staticmethod
        def double(x: int) -> int:
            return x * 2

    return ray.get(ray.remote(Box.double).remote(4))


def a_builtin() -> Any:
    return said(lambda: ray.get(ray.remote(len).remote([1, 2, 3])))


def a_partial() -> Any:
    return said(lambda: ray.remote(functools.partial(max, 3)))


def something_that_cannot_be_called() -> Any:
    return raised(lambda: ray.remote(5)), raised(lambda: ray.remote())


def an_async_function() -> Any:
    async def f() -> int:
        return 1

    return raised(lambda: ray.remote(f))


def a_direct_call() -> Any:
    return raised(lambda: _add(1, 2))


def a_direct_call_says_what_to_do() -> Any:
    return "remote()" in said(lambda: _add(1, 2))


def names_and_documentation() -> Any:
    return type(_add).__name__, _add._function.__name__, _add._function.__doc__


def wrong_arguments() -> Any:
    @ray.remote
    def f(a: int, b: int, *, c: int = 0) -> int:
        return a + b + c

    return [
        raised(lambda: f.remote(1)),
        raised(lambda: f.remote(1, 2, 3)),
        raised(lambda: f.remote(1, 2, d=3)),
        raised(lambda: f.remote(1, a=1)),
        raised(lambda: f.remote()),
    ]


def texts_of_wrong_arguments() -> Any:
    @ray.remote
    def f(a: int, b: int) -> int:
        return a + b

    return [said(lambda: f.remote(1)), said(lambda: f.remote(1, 2, 3)), said(lambda: f.remote(1, 2, d=3))]


def several_results() -> Any:
    @ray.remote(num_returns=3)
    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    refs = three.remote()
    return type(refs).__name__, len(refs), ray.get(refs)


def several_results_as_a_list_and_an_option() -> Any:
    @ray.remote
    def listed(n: int) -> list[int]:
        return list(range(n))

    return ray.get(listed.options(num_returns=4).remote(4)), ray.get(listed.remote(2))


def no_results() -> Any:
    return _echo.options(num_returns=0).remote(1)


def one_result_is_a_reference() -> Any:
    return type(_echo.options(num_returns=1).remote((1, 2))).__name__


def a_result_for_another_call() -> Any:
    @ray.remote(num_returns=2)
    def pair() -> tuple[int, int]:
        return 3, 4

    a, b = pair.remote()
    return ray.get([_add.remote(a, b), _echo.remote(b)])


def another_number_of_results() -> Any:
    @ray.remote(num_returns=2)
    def wrong(n: int) -> Any:
        return tuple(range(n))

    return [raised(lambda n=n: ray.get(wrong.remote(n))) for n in (1, 3)]


def one_value_in_place_of_two() -> Any:
    return raised(lambda: ray.get(ray.remote(num_returns=2)(lambda: 5).remote()))


def none_as_a_result() -> Any:
    return ray.get(ray.remote(lambda: None).remote())


def options_do_not_change_the_function() -> Any:
    two = _echo.options(num_returns=2)
    return ray.get(two.remote((1, 2))), ray.get(_echo.remote((1, 2)))


def options_of_a_function_with_options() -> Any:
    @ray.remote(num_returns=2, num_cpus=0)
    def pair() -> tuple[int, int]:
        return 1, 2

    return ray.get(pair.options(num_cpus=1).remote()), ray.get(pair.options(num_returns=1).remote())


def the_option_name() -> Any:
    return ray.get(_echo.options(name="something").remote(1))


def a_remote_function_as_an_argument() -> Any:
    @ray.remote
    def apply(f: Any, *args: Any) -> Any:
        return ray.get(f.remote(*args))

    return ray.get(apply.remote(_add, 1, 2))


def a_remote_function_of_a_remote_function() -> Any:
    return raised(lambda: ray.remote(_add))


def the_arguments_of_a_call_are_copies() -> Any:
    @ray.remote
    def change(values: list[int]) -> list[int]:
        values.append(4)
        return values

    values = [1, 2, 3]
    return ray.get(change.remote(values)), values


def arguments_are_taken_when_the_call_is_made() -> Any:
    values = [1]
    ref = _echo.remote(values)
    values.append(2)
    return ray.get(ref)


def many_arguments() -> Any:
    @ray.remote
    def count(*args: int, **kwargs: int) -> tuple[int, int]:
        return len(args), len(kwargs)

    return ray.get(count.remote(*range(200), **{f"k{i}": i for i in range(50)}))


def arguments_of_a_megabyte() -> Any:
    @ray.remote
    def length(data: bytes, text: str) -> tuple[int, int]:
        return len(data), len(text)

    return ray.get(length.remote(b"x" * 1_000_000, "é" * 500_000))


def results_of_a_megabyte() -> Any:
    results = ray.get([ray.remote(lambda n: b"r" * n).remote(n) for n in (0, 1, 99_999, 100_001, 2_000_000)])
    return [len(result) for result in results]


def the_same_reference_twice() -> Any:
    ref = ray.put(3)
    return ray.get(_add.remote(ref, ref, ref))


def the_result_is_kept_for_later() -> Any:
    ref = _echo.remote("kept")
    return ray.get(ref), ray.get(ref), ray.get([ref, ref])


def keyword_only_and_positional_only() -> Any:
    @ray.remote
    def f(a: int, /, b: int, *, c: int) -> tuple[int, int, int]:
        return a, b, c

    return ray.get(f.remote(1, b=2, c=3)), raised(lambda: f.remote(a=1, b=2, c=3)), raised(lambda: f.remote(1, 2, 3))


def a_class_within_a_function() -> Any:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def moved(self) -> Point:
            return Point(self.x + 1)

    return ray.get(ray.remote(lambda point: point.moved()).remote(Point(4))).x


def a_decorated_function() -> Any:
    def doubled(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            return 2 * function(*args)

        return inner

    @ray.remote
    @doubled
    def f(x: int) -> int:
        return x + 1

    return ray.get(f.remote(4))


def imports_within_a_function() -> Any:
    @ray.remote
    def f() -> str:
        import json

        return json.dumps({"a": [1]})

    return ray.get(f.remote())
