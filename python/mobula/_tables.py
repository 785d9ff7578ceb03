"""How tables of Arrow and polars are pickled, so that readers find their columns in the store, and no more than those.

pyarrow pickles a slice with all rows of the table that it is a part of, and polars copies a frame when it is read.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any

# Smaller parts of buffers are sent with them.
_SPARE_BYTES_MAX = 4096

# The reducers by the classes of the packages that the program has imported, and these packages.
reducers: dict[type, Callable[[Any], Any]] = {}
_known: set[str] = set()


def look() -> None:
    """Find the classes of packages that were imported since the last look."""
    for package, find in (("pyarrow", _of_pyarrow), ("polars", _of_polars)):
        if package in sys.modules and package not in _known:
            try:
                find()
            except AttributeError:
                # Another thread imports it at the moment.
                continue
            _known.add(package)


def _of_pyarrow() -> None:
    import pyarrow as pa
    import pyarrow.ipc

    def reduce(value: Any) -> Any:
        if value.get_total_buffer_size() <= 2 * value.nbytes + _SPARE_BYTES_MAX:
            return value.__reduce_ex__(5)
        # In the format of streams, which has the rows of the slice alone. It is read where it lies.
        table = pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else value
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return (_from_stream, (pickle.PickleBuffer(sink.getvalue()), type(value) is pa.RecordBatch))

    reducers.update({pa.Table: reduce, pa.RecordBatch: reduce})


def _from_stream(stream: Any, is_batch: bool) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(stream)) as reader:
        table = reader.read_all()
    if not is_batch:
        return table
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _of_polars() -> None:
    import polars

    # Those that come back from Arrow as they were.
    classes = (polars.Boolean, polars.String, polars.Binary, polars.Date, polars.Time, polars.Datetime, polars.Duration)

    def has_same_type_in_arrow(dtype: Any) -> bool:
        is_number = dtype.is_integer() or dtype.is_float()
        return bool(is_number and dtype.to_python() is not None) or dtype.base_type() in classes

    def reduce(frame: Any) -> Any:
        if not all(map(has_same_type_in_arrow, frame.dtypes)):
            return frame.__reduce_ex__(5)
        try:
            # As it lies: text stays in the form that polars has it in.
            table = frame.to_arrow(compat_level=polars.CompatLevel.newest())
        except ImportError:
            # There is no pyarrow.
            return frame.__reduce_ex__(5)
        look()
        return (polars.from_arrow, (table,))

    reducers[polars.DataFrame] = reduce


class Reducers(dict[type, Callable[[Any], Any]]):
    """A part of a table of reducers, which finds the classes of this module."""

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        found = None
        if cls.__module__.partition(".")[0] in ("pyarrow", "polars"):
            look()
            found = reducers.get(cls)
        if found is None:
            raise KeyError(cls)
        return found
