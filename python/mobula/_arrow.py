"""Arrow data taken apart, as programs of other languages read it, and put together.

The parts are those of ``mobula/src/value/arrow``: the schema, the number of rows, and a node for each array, children
behind their parents: its length, the bits that say which elements are null, and its buffers. Buffers are cut to the
elements that the array shows, and copied by nobody here. Where the first buffer has the offsets of text or lists, the
data that they point into begins at the first offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

# Types without parameters, by their names in Rust.
_SIMPLE: dict[str, Any] = {
    "Null": pa.null(),
    "Boolean": pa.bool_(),
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "UInt8": pa.uint8(),
    "UInt16": pa.uint16(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "Float16": pa.float16(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "Date32": pa.date32(),
    "Date64": pa.date64(),
    "Utf8": pa.string(),
    "LargeUtf8": pa.large_string(),
    "Binary": pa.binary(),
    "LargeBinary": pa.large_binary(),
}
_NAMES = {arrow_type: name for name, arrow_type in _SIMPLE.items()}
_UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}
_UNIT_NAMES = {name: unit for unit, name in _UNITS.items()}
# Types whose values have a form of their own in Arrow's newer readers, and the types that they go as.
_GATHERED: dict[Any, Any] = {}
for _view, _plain in (("string_view", "large_string"), ("binary_view", "large_binary")):
    if hasattr(pa, _view):
        _GATHERED[getattr(pa, _view)()] = getattr(pa, _plain)()


def to_parts(value: Any) -> dict[str, Any]:
    """Take a table, a batch or an array apart, of pyarrow or of another package that gives Arrow data."""
    data = _of_arrow(value)
    if isinstance(data, pa.RecordBatch):
        columns, metadata = data.columns, data.schema.metadata
        fields, rows = list(data.schema), data.num_rows
    else:
        columns, fields, rows, metadata = [data], [pa.field("", data.type)], len(data), None
    columns = [_shown(column) for column in columns]
    fields = [field.with_type(column.type) for field, column in zip(fields, columns, strict=True)]
    schema = {"fields": [_field(field) for field in fields], "metadata": _text(metadata)}
    nodes: list[dict[str, Any]] = []
    for column in columns:
        _take_apart(column, nodes)
    return {"schema": schema, "rows": rows, "nodes": nodes}


def from_parts(parts: dict[str, Any]) -> Any:
    """Put a batch together, or an array: the only column of a table without names."""
    fields = [_of_field(field) for field in parts["schema"]["fields"]]
    nodes = iter(parts["nodes"])
    columns = [_put_together(field.type, nodes) for field in fields]
    for column in columns:
        # Offsets and text come from another process.
        column.validate(full=True)
    if len(fields) == 1 and fields[0].name == "":
        return columns[0]
    schema = pa.schema(fields, metadata=parts["schema"]["metadata"] or None)
    if not fields:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * parts["rows"], pa.struct([])))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _of_arrow(value: Any) -> Any:
    """The data as one batch, or one array."""
    if not isinstance(value, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        if hasattr(value, "__arrow_c_stream__"):
            try:
                value = pa.table(value)
            except (TypeError, ValueError, pa.ArrowException):
                # It is a column.
                value = pa.chunked_array(value)
        else:
            value = pa.array(value)
    if isinstance(value, pa.Table):
        # Several pieces become one, which copies them.
        batches = value.combine_chunks().to_batches()
        value = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=value.schema)
    if isinstance(value, pa.ChunkedArray):
        value = value.chunk(0) if value.num_chunks == 1 else value.combine_chunks()
    return value


def _shown(array: Any) -> Any:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array.cast(_GATHERED[array.type]) if array.type in _GATHERED else array


def _take_apart(array: Any, nodes: list[dict[str, Any]]) -> None:
    array = _shown(array)
    kind, offset, length = array.type, array.offset, len(array)
    children: list[Any] = []
    buffers: list[Any] = []
    own, bits_offset = array.buffers(), 0
    if pa.types.is_null(kind) or pa.types.is_struct(kind):
        children = [array.field(index) for index in range(kind.num_fields)]
    elif pa.types.is_boolean(kind):
        bits_offset = offset % 8
        buffers = [_bits(own[1], offset, length)]
    elif pa.types.is_dictionary(kind):
        width = kind.index_type.bit_width // 8
        buffers = [_cut(own[1], offset * width, length * width)]
        children = [array.dictionary]
    elif pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        children = [array.values.slice(offset * size, length * size)]
    elif _has_offsets(kind):
        width = 8 if _is_large(kind) else 4
        offsets = _cut(own[1], offset * width, (length + 1) * width)
        bounds = memoryview(offsets).cast("B").cast("q" if width == 8 else "i") if offsets.size else [0]
        first, last = bounds[0], bounds[-1]
        buffers = [offsets if offsets.size else pa.py_buffer(bytes(width))]
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            children = [array.values.slice(first, last - first)]
        else:
            buffers.append(_cut(own[2], first, last - first))
    else:
        width = kind.bit_width // 8
        buffers = [_cut(own[1], offset * width, length * width)]
    nulls = None
    if array.null_count and own[0] is not None:
        nulls = {"bits": _bits(own[0], offset, length), "offset": offset % 8}
    nodes.append({"length": length, "offset": bits_offset, "nulls": nulls, "buffers": buffers})
    for child in children:
        _take_apart(child, nodes)


def _put_together(kind: Any, nodes: Iterator[dict[str, Any]]) -> Any:
    node = next(nodes)
    length, buffers = node["length"], [pa.py_buffer(buffer) for buffer in node["buffers"]]
    if pa.types.is_null(kind):
        return pa.nulls(length)
    nulls = None
    if node["nulls"] is not None:
        nulls = _from_first_bit(pa.py_buffer(node["nulls"]["bits"]), node["nulls"]["offset"], length)
    children: list[Any] = []
    if pa.types.is_struct(kind):
        children = [_put_together(kind.field(index).type, nodes) for index in range(kind.num_fields)]
    elif pa.types.is_boolean(kind):
        buffers = [_from_first_bit(buffers[0], node["offset"], length)]
    elif pa.types.is_dictionary(kind):
        dictionary = _put_together(kind.value_type, nodes)
        keys = pa.Array.from_buffers(kind.index_type, length, [nulls, *buffers])
        return pa.DictionaryArray.from_arrays(keys, dictionary, ordered=kind.ordered)
    elif pa.types.is_fixed_size_list(kind):
        children = [_put_together(kind.value_type, nodes)]
    elif _has_offsets(kind):
        buffers[0] = _from_zero(buffers[0], "q" if _is_large(kind) else "i")
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            children = [_put_together(kind.value_type, nodes)]
    return pa.Array.from_buffers(kind, length, [nulls, *buffers], children=children or None)


def _has_offsets(kind: Any) -> bool:
    has = (pa.types.is_string, pa.types.is_binary, pa.types.is_list, pa.types.is_large_list)
    return any(test(kind) for test in (*has, pa.types.is_large_string, pa.types.is_large_binary))


def _is_large(kind: Any) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) or pa.types.is_large_list(kind))


def _cut(buffer: Any, start: int, length: int) -> Any:
    return pa.py_buffer(b"") if buffer is None else buffer.slice(start, min(length, max(buffer.size - start, 0)))


def _bits(buffer: Any, offset: int, length: int) -> Any:
    start = offset // 8
    return _cut(buffer, start, (offset + length + 7) // 8 - start)


def _from_first_bit(buffer: Any, offset: int, length: int) -> Any:
    """The bits without those in front, which other buffers of the array do not have."""
    if offset == 0:
        return buffer
    bits = int.from_bytes(buffer, "little") >> offset
    return pa.py_buffer((bits & ((1 << length) - 1)).to_bytes((length + 7) // 8, "little"))


def _from_zero(offsets: Any, letter: str) -> Any:
    """The offsets from the beginning of the data, which is where the first one points."""
    numbers: Any = memoryview(offsets).cast("B").cast(letter)  # type: ignore[call-overload]
    if not len(numbers) or numbers[0] == 0:
        return offsets
    from array import array

    return pa.py_buffer(array(letter, (number - numbers[0] for number in numbers)))


def _field(field: Any) -> dict[str, Any]:
    return {
        "name": field.name,
        "data_type": _type(field.type),
        "nullable": field.nullable,
        "dict_id": 0,
        "dict_is_ordered": bool(pa.types.is_dictionary(field.type) and field.type.ordered),
        "metadata": _text(field.metadata),
    }


def _of_field(field: dict[str, Any]) -> Any:
    kind = _of_type(field["data_type"])
    if pa.types.is_dictionary(kind):
        kind = pa.dictionary(kind.index_type, kind.value_type, field["dict_is_ordered"])
    return pa.field(field["name"], kind, field["nullable"], metadata=field["metadata"] or None)


def _text(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in (metadata or {}).items()}


def _type(kind: Any) -> Any:
    if kind in _NAMES:
        return _NAMES[kind]
    if kind in _GATHERED:
        return _NAMES[_GATHERED[kind]]
    if pa.types.is_timestamp(kind):
        return {"Timestamp": [_UNITS[kind.unit], kind.tz]}
    if pa.types.is_time32(kind) or pa.types.is_time64(kind):
        return {f"Time{kind.bit_width}": _UNITS[kind.unit]}
    if pa.types.is_duration(kind):
        return {"Duration": _UNITS[kind.unit]}
    if pa.types.is_decimal128(kind):
        return {"Decimal128": [kind.precision, kind.scale]}
    if pa.types.is_fixed_size_binary(kind):
        return {"FixedSizeBinary": kind.byte_width}
    if pa.types.is_struct(kind):
        return {"Struct": [_field(kind.field(index)) for index in range(kind.num_fields)]}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"LargeList" if _is_large(kind) else "List": _field(kind.value_field)}
    if pa.types.is_fixed_size_list(kind):
        return {"FixedSizeList": [_field(kind.value_field), kind.list_size]}
    if pa.types.is_dictionary(kind):
        return {"Dictionary": [_type(kind.index_type), _type(kind.value_type)]}
    raise TypeError(f"Arrow data of type {kind} cannot go to another language: cast it to another type first")


def _of_type(name: Any) -> Any:
    if isinstance(name, str):
        if name in _SIMPLE:
            return _SIMPLE[name]
        raise TypeError(f"Arrow data of type {name} cannot be read here: cast it to another type first")
    [(name, content)] = name.items()
    if name == "Timestamp":
        return pa.timestamp(_UNIT_NAMES[content[0]], content[1])
    if name == "Time32":
        return pa.time32(_UNIT_NAMES[content])
    if name == "Time64":
        return pa.time64(_UNIT_NAMES[content])
    if name == "Duration":
        return pa.duration(_UNIT_NAMES[content])
    if name == "Decimal128":
        return pa.decimal128(*content)
    if name == "FixedSizeBinary":
        return pa.binary(content)
    if name == "Struct":
        return pa.struct([_of_field(field) for field in content])
    if name in ("List", "LargeList"):
        return (pa.large_list if name == "LargeList" else pa.list_)(_of_field(content))
    if name == "FixedSizeList":
        return pa.list_(_of_field(content[0]), content[1])
    if name == "Dictionary":
        return pa.dictionary(_of_type(content[0]), _of_type(content[1]))
    raise TypeError(f"Arrow data of type {name} cannot be read here: cast it to another type first")
