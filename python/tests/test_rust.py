"""Rust and Python in one program: calls would run the wrong function, values come back as others, arrays be copied, and
errors be lost on the way between the two languages."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobula
from mobula import rust

ROOT = Path(__file__).parents[2]
PROGRAM = os.environ.get("MOBULA_CROSS_LANGUAGE", str(ROOT / "target/debug/examples/cross_language"))

pytestmark = pytest.mark.skipif(
    not os.access(PROGRAM, os.X_OK),
    reason="build it: cargo build -p mobula-examples --features arrow --example cross_language",
)


@pytest.fixture(scope="module")
def program() -> Iterator[rust.RustProgram]:
    with mobula.init(num_cpus=2):
        yield mobula.rust.program(PROGRAM)


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_plain_values_cross(program: rust.RustProgram) -> None:
    text, counts = mobula.get(program("greet").remote(["ä", "b" * 40], 2**32 - 1))
    assert text == "ä and " + "b" * 40 and counts == {"ä": 2**32 - 1, "b" * 40: 2**32 - 1}
    assert mobula.get(program("divide").remote(-(2**63), 2)) == -(2**62)
    assert mobula.get(program("greet").remote(("x",) * 5000, 1))[0].count("x") == 5000


def test_arrays_cross_without_a_copy(program: rust.RustProgram) -> None:
    array = np.arange(300_000, dtype=np.float64).reshape(3, -1)
    doubled = program("scale").remote(array, 2.0)
    found = mobula.get(doubled)
    assert (found == 2 * array).all() and found.shape == array.shape and not found.flags.writeable
    assert address(found) == address(mobula.get(doubled)), "it was copied"
    # The result of one call is the argument of the next one.
    assert (mobula.get(program("scale").remote(doubled, 0.5)) == array).all()
    assert (mobula.get(program("scale").remote(np.asfortranarray(array), 2.0)) == found).all()
    assert (mobula.get(program("scale").remote(rust.put(array), 2.0)) == found).all()
    assert mobula.get(program("scale").remote(np.full((), 3.0), np.float64(2))).item() == 6.0


def test_a_python_function_takes_what_rust_returns(program: rust.RustProgram) -> None:
    @mobula.remote
    def total(array: Any) -> float:
        return float(array.sum())

    assert mobula.get(total.remote(program("scale").remote(np.ones(1000), 3.0))) == 3000.0


def test_a_worker_calls_rust(program: rust.RustProgram) -> None:
    function = program("divide")

    @mobula.remote
    def half(number: int) -> Any:
        return mobula.get(function.remote(number, 2))

    assert mobula.get(half.remote(10)) == 5


def test_an_actor_keeps_its_state_and_its_order(program: rust.RustProgram) -> None:
    total = program.actor("Total").remote(1.0)
    sums = [total.add.remote(np.full(3, float(number))) for number in range(20)]
    assert mobula.get(sums) == [1.0 + 3 * number * (number + 1) / 2 for number in range(20)]
    assert mobula.get(total.total.remote()) == mobula.get(sums[-1])
    with pytest.raises(mobula.exceptions.RayTaskError, match=r"no method \"nothing\": it has add, total"):
        mobula.get(total.nothing.remote())


def test_a_stream_crosses(program: rust.RustProgram) -> None:
    items = program("countdown").options(num_returns="streaming").remote(300)
    assert [mobula.get(item) for item in items] == list(range(299, -1, -1))


def test_errors_cross_as_typed_summaries(program: rust.RustProgram) -> None:
    with pytest.raises(mobula.exceptions.RayTaskError, match="1 cannot be divided by 0") as raised:
        mobula.get(program("divide").remote(1, 0))
    assert raised.value.function_name.endswith("divide")
    with pytest.raises(mobula.exceptions.RayTaskError, match="argument 1"):
        mobula.get(program("divide").remote("one", 0))
    with pytest.raises(mobula.exceptions.RayTaskError, match="missing"):
        mobula.get(program("divide").remote(1))
    with pytest.raises(mobula.exceptions.RayTaskError, match="not registered"):
        mobula.get(program("no_such_function").remote())


def test_what_cannot_cross_is_refused_at_once(program: rust.RustProgram) -> None:
    class Own:
        pass

    for value, text in [
        (Own(), "class .*Own"),
        ({1, 2}, "class set"),
        (2**130, "128 bits"),
        (np.array(["text"]), "dtype <U4"),
        ([Own()], "class"),
    ]:
        with pytest.raises((TypeError, ValueError), match=text):
            program("divide").remote(value, 1)
    deep: Any = 0
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(RecursionError, match="too deep"):
        program("divide").remote(deep, 1)
    with pytest.raises(FileNotFoundError, match="build it"):
        mobula.rust.program("/no/such/program")
    # A value in Python's own format is refused where Rust reads it.
    with pytest.raises(mobula.exceptions.RayTaskError, match="Python"):
        mobula.get(program("divide").remote(mobula.put(1), 1))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [0, -1, 2**31, -(2**31) - 1, 2**64 - 1, -(2**127), 2**128 - 1],
        [1.5, float("inf"), -0.0],
        list(range(100)),
        [float(number) for number in range(1000)],
        [2**40 + number for number in range(20)],
        {"text": "ü" * 70_000, "bytes": b"\x00\xff" * 300, "more": b"x" * 100_000, 1: {2: [None, ()]}},
        {"a": [{"b": [["c"] * 20]}]},
    ],
)
def test_values_are_the_same_after_a_way_through_the_format(program: rust.RustProgram, value: Any) -> None:
    def lists(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: lists(item) for key, item in value.items()}
        return [lists(item) for item in value] if isinstance(value, list | tuple) else value

    assert mobula.get(rust.put(value)) == lists(value)


def test_arrays_of_each_type_are_the_same_after_a_way_through_the_format(program: rust.RustProgram) -> None:
    for dtype in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?", "c8", "c16"):
        for shape in ((), (0,), (7,), (2, 3, 4), (1000, 3)):
            array = np.array(np.arange(int(np.prod(shape))).reshape(shape) % 2, dtype)
            found = mobula.get(rust.put({"array": array, "slice": array[..., ::2] if shape else array}))
            assert found["array"].dtype == array.dtype and found["array"].shape == shape
            assert (found["array"] == array).all() and not found["array"].flags.writeable
    memory = mobula.get(rust.put(memoryview(b"where it lies" * 1000)))
    assert memory == b"where it lies" * 1000 and memory.readonly


class TestArrow:
    @pytest.fixture(autouse=True)
    def arrow(self) -> Any:
        return pytest.importorskip("pyarrow")

    def test_tables_cross_without_a_copy(self, program: rust.RustProgram, arrow: Any) -> None:
        table = arrow.table({"a": np.arange(100_000), "b": np.arange(100_000) * 2})
        assert mobula.get(program("column_sums").remote(table)) == {"a": 4_999_950_000, "b": 9_999_900_000}
        stored = rust.put(table)
        same = mobula.get(program("same_table").remote(stored))
        assert arrow.Table.from_batches([same]).equals(table)
        first = mobula.get(stored).column(0).buffers()[1].address
        assert same.column(0).buffers()[1].address == first, "it was copied"

    def test_each_type_of_column(self, program: rust.RustProgram, arrow: Any) -> None:
        times = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in range(1, 7)]
        columns: dict[str, Any] = {
            "ints": arrow.array([1, None, 3, 4, None, 6], arrow.int16()),
            "floats": arrow.array([1.5, None, 3.0, -0.0, 2.0, 1.0]),
            "bools": arrow.array([True, None, False, True, False, True]),
            "text": arrow.array(["a", None, "", "ccc", "ü", "f"]),
            "large": arrow.array(["a", None, "", "ccc", "ü", "f"], arrow.large_string()),
            "bytes": arrow.array([b"a", None, b"", b"ccc", b"e", b"f"]),
            "fixed": arrow.array([b"ab", None, b"cd", b"ef", b"gh", b"ij"], arrow.binary(2)),
            "times": arrow.array(times, arrow.timestamp("us", "UTC")),
            "dates": arrow.array([time.date() for time in times]),
            "decimals": arrow.array([None, 1, 2, 3, 4, 5], arrow.decimal128(10, 2)),
            "lists": arrow.array([[1], None, [], [2, None, 3], [4], [5, 6]]),
            "pairs": arrow.array([[1, 2], None, [3, 4], [5, 6], [7, 8], [9, 0]], arrow.list_(arrow.int32(), 2)),
            "structs": arrow.array([{"x": 1, "y": "a"}, None, {"x": 2, "y": None}] * 2),
            "dictionary": arrow.array(["a", None, "b", "a", "b", "c"]).dictionary_encode(),
            "nulls": arrow.nulls(6),
        }
        batch = arrow.record_batch(columns)
        # Slices begin in the middle of buffers, and of bytes of bits.
        for shown in (batch, batch.slice(1), batch.slice(2, 3), batch.slice(5), batch.slice(0, 0)):
            for found in (mobula.get(rust.put(shown)), mobula.get(program("same_table").remote(shown))):
                assert found.to_pylist() == shown.to_pylist()
                assert found.schema == shown.schema
        for column in columns.values():
            assert mobula.get(rust.put(column)).equals(column)

    def test_a_view_of_text_and_other_packages(self, program: rust.RustProgram, arrow: Any) -> None:
        if hasattr(arrow, "string_view"):
            views = arrow.array(["a long text that is in no view", None, "short"], arrow.string_view())
            assert mobula.get(rust.put(views)).to_pylist() == views.to_pylist()

        class Foreign:
            """What polars and pandas have."""

            def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
                return arrow.table({"n": [1, 2, 3]}).__arrow_c_stream__(requested_schema)

        assert mobula.get(program("column_sums").remote(Foreign())) == {"n": 6}
        with pytest.raises(TypeError, match="cast it"):
            rust.put(arrow.array([{"a": 1}], arrow.map_(arrow.string(), arrow.int64())))


def run(*command: str) -> str:
    environment = {**os.environ, "MOBULA_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rust_calls_python() -> None:
    assert "checked" in run(PROGRAM, "--check", "--numbers", "200000")


def test_the_example_in_python() -> None:
    example = str(ROOT / "examples/python/cross_language.py")
    assert "checked" in run(sys.executable, example, "--check", "--program", PROGRAM)
