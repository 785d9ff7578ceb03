"""Values come back as they were put: if this fails, programs compute with other values than they think."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import mobula as ray

pytestmark = pytest.mark.usefixtures("session")


@dataclass
class Point:
    x: int
    y: np.ndarray[Any, Any]


class Name(str):
    """A class that is derived from a plain one."""


PLAIN = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, 10**40, 0.0, -0.0, 1e300, math.inf, "", "text", "ü€😀",
    "\ud800",
    "x" * 10_000, b"", b"bytes", b"x" * 1024, b"x" * 1025, b"x" * 100_000, [], [1, [2, [3]]], (), (1, "a", None), {},
    {"a": 1, 2: (3,)}, {1, 2}, frozenset({3}), 1 + 2j, bytearray(b"abc"), range(3), Ellipsis, int, [[]] * 3,
]  # fmt: skip


@ray.remote
def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_plain_values_come_back_with_their_class(value: Any) -> None:
    for back in (ray.get(ray.put(value)), ray.get(same.remote(value))):
        assert type(back) is type(value) and back == value


def test_what_equals_is_not_enough() -> None:
    assert math.isnan(ray.get(ray.put(math.nan)))
    assert math.copysign(1, ray.get(ray.put(-0.0))) == -1
    assert type(ray.get(ray.put(Name("n")))) is Name


class Number(int):
    """A class that is derived from ``int``."""


def test_lists_of_numbers_come_back_with_their_classes() -> None:
    """They are written as numbers where all are of one class, and such lists must not swallow other ones."""
    ints, floats = list(range(-20, 20)), [i / 3 for i in range(40)]
    limits = [-(2**31), 2**31 - 1, 2**31, -(2**63), 2**63 - 1]
    strange = [0.0, -0.0, float("inf"), float("-inf"), 5e-324]
    lists: list[list[Any]] = [ints, floats, ints[:15], ints[:16], limits * 8, limits[:2] * 8, strange * 8]
    lists += [[*ints, other] for other in (True, 1.0, None, "1", 2**63, -(2**70), Number(7))]
    lists += [[*floats, other] for other in (1, False, "1.0")]
    for values in lists:
        back = ray.get(ray.put(values))
        assert back == values
        assert [type(value).__name__ for value in back] == [type(value).__name__ for value in values]
        assert [str(value) for value in back] == [str(value) for value in values]
    nans = ray.get(ray.put([float("nan")] * 16))
    assert len(nans) == 16 and all(value != value for value in nans)


def test_deep_and_circular_values() -> None:
    deep: Any = None
    for _ in range(100):
        deep = [deep]
    assert ray.get(ray.put(deep)) == deep
    circle: list[Any] = [1]
    circle.append(circle)
    back = ray.get(ray.put(circle))
    assert back[0] == 1 and back[1] is back


ARRAYS = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(10)[::2],
    np.array(5),
    np.zeros((0, 3), dtype=np.int8),
    np.array([True, False]),
    np.arange(4, dtype=">i4"),
    np.arange(4, dtype=np.float16),
    np.array([1 + 2j]),
    np.array(["a", "bc"]),
    np.array([b"a", b"bc"]),
    np.array(["2026-11-29"], dtype="datetime64[D]"),
    np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([{}, None, "x"], dtype=object),
    np.arange(100_000, dtype=np.uint16),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_arrays_come_back(array: Any) -> None:
    for back in (ray.get(ray.put(array)), ray.get(same.remote(array)), ray.get(ray.put({"in": [array]}))["in"][0]):
        assert back.dtype == array.dtype and back.shape == array.shape
        assert np.array_equal(back, array)
        assert type(back) is np.ndarray


def test_arrays_are_read_where_they_lie() -> None:
    array = np.arange(1_000_000)
    ref = ray.put(array)
    one, other = ray.get(ref), ray.get(ref)
    address = one.__array_interface__["data"][0]
    assert address == other.__array_interface__["data"][0]
    assert address % 64 == 0
    assert not one.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1
    # Within another value, too.
    point = ray.get(ray.put(Point(1, array)))
    assert isinstance(point, Point) and not point.y.flags.owndata and np.array_equal(point.y, array)


def test_memory_lives_as_long_as_an_array() -> None:
    array = ray.get(ray.put(np.arange(100_000)))
    part = array[10:20]
    del array
    # A new object at the same place would show.
    for _ in range(100):
        ray.put(np.zeros(100_000, dtype=int))
    assert part.tolist() == list(range(10, 20))


def test_a_subclass_of_an_array_keeps_its_class() -> None:
    matrix = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    back = ray.get(ray.put(matrix))
    assert type(back) is type(matrix) and back.sum() == 4


def test_references_in_values() -> None:
    inner = ray.put(np.arange(1000))
    outer = ray.put({"refs": [inner, inner], "deep": ((inner,),)})
    del inner
    back = ray.get(outer)
    first, second = back["refs"]
    assert first == second == back["deep"][0][0]
    assert hash(first) == hash(second)
    assert np.array_equal(ray.get(first), np.arange(1000))


def test_a_reference_keeps_its_id_in_every_process() -> None:
    @ray.remote
    def hexes(refs: list[Any]) -> list[str]:
        return [ref.hex() for ref in refs]

    refs = [ray.put(1), same.remote(2)]
    assert ray.get(hexes.remote(refs)) == [ref.hex() for ref in refs]


def test_a_reference_cannot_be_pickled_elsewhere() -> None:
    import pickle

    with pytest.raises(TypeError, match="only be pickled by mobula"):
        pickle.dumps(ray.put(1))


def test_what_cannot_be_pickled_is_an_error_at_once() -> None:
    import threading

    with pytest.raises(TypeError, match="lock"):
        ray.put(threading.Lock())
    with pytest.raises(TypeError, match="lock"):
        same.remote(threading.Lock())


def test_put_refuses_references() -> None:
    with pytest.raises(TypeError, match="not allowed"):
        ray.put(ray.put(1))


def test_references_are_freed() -> None:
    before = sys.getrefcount(None)
    for _ in range(1000):
        ray.get(ray.put(None))
        ray.get(same.remote(None))
    assert sys.getrefcount(None) - before < 500


def test_serializers_of_a_class() -> None:
    class Connection:
        def __init__(self, name: str) -> None:
            self.name = name
            self.lock = __import__("threading").Lock()

    ray.util.register_serializer(Connection, serializer=lambda c: c.name, deserializer=Connection)
    try:
        assert ray.get(ray.put(Connection("db"))).name == "db"
    finally:
        ray.util.deregister_serializer(Connection)
    with pytest.raises(TypeError):
        ray.put(Connection("db"))


def test_copies_of_references_are_references() -> None:
    import copy

    ref = ray.put(1)
    assert copy.copy(ref) == copy.deepcopy({"in": [ref]})["in"][0] == ref


class Keeps:
    """Keeps a pickle of its reference, instead of the reference."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    def __reduce__(self) -> Any:
        import pickle

        return (Keeps.of_pickle, (pickle.dumps(self.ref),))

    @staticmethod
    def of_pickle(data: bytes) -> Any:
        return data


def test_a_pickled_reference_is_never_another_one() -> None:
    import pickle

    mine, other = ray.put("A"), ray.put("B")
    data = ray.get(ray.put(Keeps(mine)))

    class Opens:
        def __init__(self, data: bytes, ref: Any) -> None:
            self.data, self.ref = data, ref

        def __reduce__(self) -> Any:
            return (lambda data, ref: (pickle.loads(data), ref), (self.data, self.ref))

    with pytest.raises(ValueError, match="not of the value"):
        ray.get(ray.put(Opens(data, other)))


def test_a_fork_warns_of_arrays_that_the_child_cannot_read(session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobula._session._has_warned_of_fork", False)
    held = ray.get(ray.put(np.arange(1000)))
    with pytest.warns(RuntimeWarning, match="forks while it has arrays"):
        child = os.fork()
        if child == 0:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and held[-1] == 999
