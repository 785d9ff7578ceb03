"""How functions, classes and values of any class become bytes."""

from __future__ import annotations

import copyreg
import hashlib
import io
import types
from collections import ChainMap
from collections.abc import Callable
from typing import Any, ClassVar

import cloudpickle

from mobula._tables import Reducers


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    make, parts = _without_file(code)[:2]
    # Tracebacks show the lines of the file, which `cloudpickle` leaves out.
    return make, tuple(code.co_filename if part == "<dynamic-code>" else part for part in parts)


_later: Any = Reducers()
_table: Any = cloudpickle.Pickler.dispatch_table
_without_file = _table[types.CodeType]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles functions and classes with their code."""

    dispatch_table: ClassVar[Any] = ChainMap({types.CodeType: _reduce_code}, _table, _later)


def dumps(value: Any, protocol: int = 5, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle a value of any class. Functions and classes of ``__main__`` are pickled with their code."""
    with io.BytesIO() as file:
        _Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


# The most bytes of a pickled function: each worker that runs it keeps a copy of the values that it refers to.
EXPORT_BYTES_MAX = 95 << 20


def pickled(function: Callable[..., Any] | type, name: str, shown: str) -> bytes:
    """Pickle a function or a class, with what it captures."""
    try:
        found = dumps(function)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"Could not serialize {name}: {error}. Check what it refers to outside itself; an object that cannot be "
            "pickled, such as a lock or a connection, must be made inside."
        ) from error
    if len(found) > EXPORT_BYTES_MAX:
        raise ValueError(
            f"The {shown} is too large: {len(found) >> 20} MiB, and at most {EXPORT_BYTES_MAX >> 20} MiB are allowed. "
            "It refers to a large array or another large object outside itself. Put that object by ray.put(), and pass "
            "the reference as an argument."
        )
    return found


def key(pickled: bytes, references: bytes) -> int:
    """Return the number by which workers know a function: of its pickle, and of the objects that it refers to."""
    return int.from_bytes(hashlib.sha256(len(pickled).to_bytes(8) + pickled + references).digest()[:8])


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Set how values of a class are written and read. Call it before such a value is sent."""
    copyreg.pickle(cls, lambda value: (deserializer, (serializer(value),)))


def deregister_serializer(cls: type) -> None:
    """Undo ``register_serializer``."""
    copyreg.dispatch_table.pop(cls, None)
