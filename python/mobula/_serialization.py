"""How functions, classes and values of any class become bytes."""

from __future__ import annotations

import copyreg
import hashlib
import io
from collections.abc import Callable
from typing import Any

import cloudpickle

from mobula import _mobula


def dumps(value: Any, protocol: int, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle a value of any class. Functions and classes of ``__main__`` are pickled with their code."""
    with io.BytesIO() as file:
        cloudpickle.Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


def export(function: Callable[..., Any] | type, name: str) -> _mobula.Function:
    """Pickle a function or a class, once for all its calls."""
    try:
        pickled = cloudpickle.dumps(function)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"Could not serialize {name}: {error}. Check what it refers to outside itself; an object that cannot be "
            "pickled, such as a lock or a connection, must be made inside."
        ) from error
    key = int.from_bytes(hashlib.sha256(pickled).digest()[:8])
    return _mobula.Function(key, name, pickled)


def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Say how values of a class are written and read. Call it before such a value is sent."""
    copyreg.pickle(cls, lambda value: (deserializer, (serializer(value),)))


def deregister_serializer(cls: type) -> None:
    """Undo ``register_serializer``."""
    copyreg.dispatch_table.pop(cls, None)
