"""Tables of Arrow, pandas and polars. If these fail, a table arrives changed, or each process that reads it has a copy.

A table whose bytes are not copied lies in a mapping of the store: the addresses of its buffers say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobula as ray

pytestmark = pytest.mark.usefixtures("session")

ROWS = 200_000


def is_in_store(address: int) -> bool:
    """Whether an address of this process lies in the store's memory. Only its owner can write there."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        first, end = (int(part, 16) for part in span.split("-"))
        if first <= address < end:
            return "memfd:mobula-segment" in line and rights.endswith("s")
    return False


def test_the_look_at_the_mappings_can_fail() -> None:
    assert is_in_store(ray.get(ray.put(np.zeros(ROWS))).__array_interface__["data"][0])
    assert not is_in_store(np.zeros(ROWS).__array_interface__["data"][0])


class TestArrow:
    @pytest.fixture
    def table(self) -> Any:
        arrow = pytest.importorskip("pyarrow")
        texts = arrow.array([f"text {number % 1000}" for number in range(ROWS)])
        return arrow.table(
            {
                "number": arrow.array(np.arange(ROWS)),
                "text": texts,
                "some": arrow.array([None if number % 3 == 0 else number for number in range(ROWS)]),
                "list": arrow.array([[number] for number in range(ROWS)]),
                "kind": texts.dictionary_encode(),
            }
        )

    @staticmethod
    def addresses(table: Any) -> list[int]:
        """The addresses of the large buffers."""
        columns = [chunk for name in ("number", "text", "some", "list") for chunk in table[name].chunks]
        return [
            buffer.address
            for column in columns
            for buffer in column.buffers()
            if buffer is not None and buffer.size > 4096
        ]

    def test_a_table_is_read_where_it_lies(self, table: Any) -> None:
        ref = ray.put(table)
        one, other = ray.get(ref), ray.get(ref)
        assert one.equals(table) and one.schema == table.schema and type(one) is type(table)
        assert len(self.addresses(one)) >= 7 and all(map(is_in_store, self.addresses(one)))
        assert self.addresses(one) == self.addresses(other) != self.addresses(table)
        assert not one["number"].chunks[0].buffers()[1].is_mutable

    def test_a_table_through_a_task_and_an_actor(self, table: Any) -> None:
        def half(table: Any) -> Any:
            assert all(map(is_in_store, TestArrow.addresses(table)))
            return table.slice(0, table.num_rows // 2)

        ref = ray.put(table)
        found = ray.get(ray.remote(half).remote(ref))
        assert found.equals(table.slice(0, ROWS // 2)) and all(map(is_in_store, self.addresses(found)))

        class Holder:
            def __init__(self, table: Any) -> None:
                self.table = table

            def part(self, start: int, rows: int) -> Any:
                return self.table.slice(start, rows)

        holder = ray.remote(Holder).remote(ref)
        assert ray.get(holder.part.remote(7, 3)).equals(table.slice(7, 3))

    def test_batches_arrays_and_nesting(self, table: Any) -> None:
        batch = table.to_batches()[0]
        value = {"batch": batch, "arrays": [batch.column(0), table["text"]]}
        back = ray.get(ray.put(value))
        assert back["batch"].equals(batch) and back["arrays"][0].equals(batch.column(0))
        assert back["arrays"][1].equals(table["text"])

    def test_a_slice_sends_its_own_rows_alone(self, table: Any) -> None:
        from mobula.util.state import get_objects

        plain = table.select(["number", "text", "some", "list"])
        for value in (plain.slice(10, 1000), plain.to_batches()[0].slice(10, 1000), plain.slice(10, 0)):
            ref = ray.put(value)
            back = ray.get(ref)
            assert back.equals(value) and type(back) is type(value) and back.schema == value.schema
            assert all(row.object_size < 100_000 for row in get_objects(ref))
        part = ray.get(ray.put(plain.slice(10, 1000)))
        assert all(map(is_in_store, self.addresses(part)))


class TestPandas:
    @pytest.fixture
    def frame(self) -> Any:
        pandas = pytest.importorskip("pandas")
        return pandas.DataFrame(
            {
                "number": np.arange(ROWS),
                "part": np.arange(ROWS) / 3,
                "text": [f"{number % 100}" for number in range(ROWS)],
            },
            index=np.arange(ROWS) * 2,
        )

    @staticmethod
    def address(frame: Any, column: str) -> int:
        array: Any = frame[column].to_numpy()
        return int(array.__array_interface__["data"][0])

    def test_a_frame_is_read_where_it_lies(self, frame: Any) -> None:
        ref = ray.put(frame)
        one, other = ray.get(ref), ray.get(ref)
        assert one.equals(frame) and list(one.dtypes) == list(frame.dtypes) and one.index.equals(frame.index)
        for column in ("number", "part"):
            assert is_in_store(self.address(one, column))
            assert self.address(one, column) == self.address(other, column)
            assert not one[column].to_numpy().flags.writeable

    def test_a_frame_through_a_task(self, frame: Any) -> None:
        def sums(frame: Any) -> Any:
            assert is_in_store(TestPandas.address(frame, "number"))
            return frame.groupby("text").number.sum()

        found = ray.get(ray.remote(sums).remote(ray.put(frame)))
        assert found.equals(frame.groupby("text").number.sum())

    def test_a_column_can_be_added(self, frame: Any) -> None:
        found = ray.get(ray.put(frame))
        found["more"] = found.number + 1
        assert (found.more == frame.number + 1).all()


class TestPolars:
    @pytest.fixture
    def frame(self) -> Any:
        polars = pytest.importorskip("polars")
        return polars.DataFrame({"number": np.arange(ROWS), "text": [f"{number % 100}" for number in range(ROWS)]})

    @staticmethod
    def address(frame: Any) -> int:
        return int(frame["number"].to_numpy(allow_copy=False).__array_interface__["data"][0])

    def test_a_frame_is_read_where_it_lies(self, frame: Any) -> None:
        ref = ray.put(frame)
        one, other = ray.get(ref), ray.get(ref)
        assert one.equals(frame) and one.schema == frame.schema and type(one) is type(frame)
        assert is_in_store(self.address(one)) and self.address(one) == self.address(other)

    def test_a_frame_through_a_task(self, frame: Any) -> None:
        import polars

        def sums(frame: Any) -> Any:
            assert is_in_store(TestPolars.address(frame))
            return frame.group_by("text").agg(polars.col("number").sum()).sort("text")

        found = ray.get(ray.remote(sums).remote(ray.put(frame)))
        assert found.equals(frame.group_by("text").agg(polars.col("number").sum()).sort("text"))

    def test_columns_of_each_type(self) -> None:
        import datetime

        polars = pytest.importorskip("polars")
        day = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
        columns = {
            "bool": [True, None],
            "small": polars.Series([1, 2], dtype=polars.UInt8),
            "float": polars.Series([0.5, None], dtype=polars.Float32),
            "text": ["short", "a text of more than twelve characters"],
            "bytes": [b"a", None],
            "date": [day.date(), None],
            "time": [day.time(), None],
            "moment": polars.Series([day, None], dtype=polars.Datetime("ms", "UTC")),
            "length": [datetime.timedelta(1), None],
            "nothing": polars.Series([None, None], dtype=polars.Int16),
        }
        others = {
            "kind": polars.Series(["a", "b"], dtype=polars.Categorical),
            "one of": polars.Series(["a", "b"], dtype=polars.Enum(["a", "b"])),
            "list": [[1], [2, 3]],
            "part": [{"x": 1, "y": "a"}, {"x": 2, "y": None}],
            "exact": polars.Series(["1.5", "2.5"]).cast(polars.Decimal(10, 2)),
        }
        for data in (columns, others, {**columns, **others}, {}):
            frame = polars.DataFrame(data)
            back = ray.get(ray.put(frame))
            assert back.schema == frame.schema and back.equals(frame)

    def test_series_and_lazy_frames(self, frame: Any) -> None:
        series, lazy = ray.get(ray.put([frame["number"], frame.lazy().head(3)]))
        assert series.equals(frame["number"]) and lazy.collect().equals(frame.head(3))
