"""Values of all classes, as results of a call that gets them."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import pathlib
import re
import threading
import uuid
from typing import Any, NamedTuple

import numpy as np
import ray

from programs import raised


@ray.remote
def _echo(value: Any) -> Any:
    return value


def _through(*values: Any) -> Any:
    """Return values as they come out of the store, and out of a call."""
    found = [ray.get(ray.put(value)) for value in values]
    called = ray.get([_echo.remote(value) for value in values])
    assert [type(value) for value in found] == [type(value) for value in called] == [type(value) for value in values]
    return called


class _Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class _Flags(enum.IntFlag):
    A = 1
    B = 2


class _Pair(NamedTuple):
    x: int
    y: str = "y"


@dataclasses.dataclass(frozen=True)
class _Record:
    name: str
    values: list[int] = dataclasses.field(default_factory=list)


class _List(list):  # type: ignore[type-arg]
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.extra = "extra"


class _Text(str):
    pass


class _Number(int):
    pass


class _Slots:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = 1, [2]


class _Stateful:
    def __getstate__(self) -> dict[str, int]:
        return {"state": 5}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.found = state


class _Reduced:
    def __init__(self, n: int) -> None:
        self.n = n

    def __reduce__(self) -> Any:
        return (_Reduced, (self.n + 1,))


def numbers() -> Any:
    return _through(0, -1, 2**31, -(2**63), 2**64, 10**40, -(10**40), 1.5, -0.0, 1e308, 5e-324, True, False, 2 + 3j)


def special_floats() -> Any:
    return [str(value) for value in _through(float("nan"), float("inf"), float("-inf"))]


def text_and_bytes() -> Any:
    return _through("", "a", "äöü €", "\x00\x01", "😀" * 3, b"", b"\x00\xff", "line\nline")


def a_bytearray() -> Any:
    return ray.get(ray.put(bytearray(b"abc"))), ray.get(_echo.remote([bytearray(b"abc")]))


def text_that_is_no_utf_8() -> Any:
    return _through("\ud800", "a\udfffb")


def containers() -> Any:
    return _through([], (), {}, set(), frozenset(), [1, [2, [3]]], (1, (2,)), {1: {2: 3}}, {1, 2}, frozenset({3}))


def keys_of_all_kinds() -> Any:
    return _through({1: "a", "b": 2, (3, 4): 5, None: 6, 1.5: 7, b"c": 8, frozenset({1}): 9})


def dictionaries_keep_their_order() -> Any:
    return _through({"z": 1, "a": 2, "m": 3})


def singletons() -> Any:
    none, dots, missing = _through(None, ..., NotImplemented)
    return none is None, dots is ..., missing is NotImplemented


def ranges_and_slices() -> Any:
    return _through(range(5), range(10, 0, -3), slice(1, None, 2))


def collections_of_the_standard_library() -> Any:
    return _through(
        collections.OrderedDict(a=1, b=2),
        collections.Counter("abca"),
        collections.deque([1, 2, 3], maxlen=5),
        collections.ChainMap({"a": 1}, {"b": 2}),
    )


def a_dictionary_with_a_default() -> Any:
    (found,) = _through(collections.defaultdict(list, a=[1]))
    found["b"].append(2)
    return dict(found)


def dates_and_times() -> Any:
    zone = datetime.timezone(datetime.timedelta(hours=2), "here")
    return _through(
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 1, 2, 3, 4, 5, 6),
        datetime.datetime(2024, 1, 2, tzinfo=zone),
        datetime.timedelta(days=1, microseconds=5),
        datetime.time(1, 2),
    )


def exact_numbers() -> Any:
    return _through(decimal.Decimal("1.10"), fractions.Fraction(2, 6))


def ids_paths_and_patterns() -> Any:
    return _through(uuid.UUID(int=7), pathlib.PurePosixPath("/a/b"), re.compile("a+", re.IGNORECASE))


def enumerations() -> Any:
    found = _through(_Colour.RED, _Colour.GREEN, _Flags.A | _Flags.B)
    return found[0] is _Colour.RED, found[1].value, int(found[2])


def enumerations_of_a_function() -> Any:
    class Local(enum.Enum):
        A = 1

    return ray.get(_echo.remote(Local.A)) is Local.A


def named_tuples_and_dataclasses() -> Any:
    return _through(_Pair(1), _Pair(1, "z"), _Record("n", [1, 2]))


def subclasses_keep_their_class() -> Any:
    listed, text, number = _through(_List([1, 2]), _Text("t"), _Number(5))
    return listed, listed.extra, text, number


def objects_with_slots() -> Any:
    (found,) = _through(_Slots())
    return found.a, found.b


def objects_that_say_how_they_are_written() -> Any:
    stateful, reduced = ray.get([_echo.remote(_Stateful()), _echo.remote(_Reduced(1))])
    return stateful.found, reduced.n > 1


def classes_and_functions() -> Any:
    found = _through(int, _Pair, len, _through, collections.OrderedDict)
    return [value.__name__ for value in found], found[0] is int, found[1] is _Pair


def local_classes_and_functions() -> Any:
    class Local:
        kind = "local"

        def twice(self, n: int) -> int:
            return 2 * n

    cls, function, bound = ray.get([_echo.remote(Local), _echo.remote(lambda x: x + 1), _echo.remote(Local().twice)])
    return cls.kind, cls().twice(2), function(1), bound(5)


def functions_with_state() -> Any:
    partial, attribute = ray.get([_echo.remote(functools.partial(pow, 2)), _echo.remote(str.upper)])
    return partial(5), attribute("a")


def iterators() -> Any:
    listed, counted = ray.get([_echo.remote(iter([1, 2])), _echo.remote(itertools.count(3))])
    return list(listed), next(counted)


def errors_as_values() -> Any:
    return _through(ValueError("v", 1), KeyError("k"), OSError(2, "no file"), StopIteration(3))


def modules() -> Any:
    return ray.get(_echo.remote(re)).__name__


def shared_parts_stay_shared() -> Any:
    part = [1]
    found = ray.get(_echo.remote({"a": part, "b": part}))
    return found["a"] is found["b"]


def a_list_within_itself() -> Any:
    value: list[Any] = [1]
    value.append(value)
    found = ray.get(_echo.remote(value))
    return found[1] is found, found[0]


def deep_nesting() -> Any:
    value: Any = 0
    for _ in range(50):
        value = [value]
    found, depth = ray.get(_echo.remote(value)), 0
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    return found, depth


def what_cannot_be_sent() -> Any:
    return [raised(lambda value=value: ray.put(value)) for value in (threading.Lock(), (i for i in ()))]


def an_argument_that_cannot_be_sent() -> Any:
    return raised(lambda: _echo.remote(threading.Lock())), raised(lambda: _echo.remote([threading.Lock()]))


def a_result_that_cannot_be_sent() -> Any:
    return raised(lambda: ray.get(ray.remote(lambda: threading.Lock()).remote()))


def a_memoryview() -> Any:
    return bytes(ray.get(ray.put(memoryview(b"abc"))))


def arrays_of_all_types() -> Any:
    types = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
    return ray.get([_echo.remote(np.arange(3).astype(of)) for of in types])


def arrays_of_all_shapes() -> Any:
    arrays = [
        np.array(5),
        np.zeros((0,)),
        np.zeros((2, 0, 3)),
        np.arange(6).reshape(2, 3),
        np.arange(8).reshape(2, 2, 2),
    ]
    return ray.get([_echo.remote(array) for array in arrays])


def arrays_of_other_orders() -> Any:
    base = np.arange(12).reshape(3, 4)
    return ray.get(
        [_echo.remote(array) for array in (base.T, base[::2], base[:, 1], base[::-1], np.asfortranarray(base))]
    )


def arrays_of_other_byte_orders() -> Any:
    return ray.get(_echo.remote(np.arange(3, dtype=">i4")))


def arrays_of_text_objects_and_records() -> Any:
    records = np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    arrays = [np.array(["a", "bcd"]), np.array([b"x", b"yz"]), np.array([1, "a", None], dtype=object), records]
    return ray.get([_echo.remote(array) for array in arrays])


def arrays_of_dates() -> Any:
    found = ray.get(_echo.remote(np.array(["2024-01-01", "2024-02-29"], dtype="datetime64[D]")))
    return str(found.dtype), [str(value) for value in found]


def scalars_of_numpy() -> Any:
    return [(type(value).__name__, value.item()) for value in _through(np.int8(3), np.float32(1.5), np.bool_(True))]


def masked_and_other_arrays() -> Any:
    masked, matrix = _through(np.ma.array([1, 2], mask=[True, False]), np.matrix([[1, 2]]))
    return type(masked).__name__, masked.tolist(), type(matrix).__name__, matrix.tolist()


def arrays_are_read_only() -> Any:
    array = ray.get(ray.put(np.zeros(1000)))

    def change() -> None:
        array[0] = 1

    return array.flags.writeable, raised(change), array.copy().flags.writeable


def arguments_are_read_only_arrays() -> Any:
    return ray.get(ray.remote(lambda array: array.flags.writeable).remote(ray.put(np.zeros(100_000))))


def arrays_within_values() -> Any:
    found = ray.get(_echo.remote({"a": [np.arange(3)], "b": (np.ones(2), "text")}))
    return found


def large_arrays() -> Any:
    array = np.arange(1_000_000)
    found = ray.get(_echo.remote(array))
    return found.shape, int(found.sum()), bool((found == array).all())


def random_generators() -> Any:
    rng = np.random.default_rng(5)
    return float(ray.get(_echo.remote(rng)).random()) == float(rng.random())


def types_of_numpy() -> Any:
    return _through(np.dtype("f8"), np.dtype([("a", "i4")]))


def values_in_one_list() -> Any:
    return ray.get(_echo.remote([1, "a", None, b"b", (1.5, {"k": {2}}), np.arange(2), _Pair(3), _Colour.RED.name]))
