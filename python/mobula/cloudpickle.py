"""The package ``cloudpickle``, under the name that it has in Ray."""

import io

from cloudpickle import CloudPickler, dump, dumps, load, loads, register_pickle_by_value, unregister_pickle_by_value

__all__ = [
    "CloudPickler",
    "dump",
    "dumps",
    "dumps_debug",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]


def dumps_debug(obj: object) -> bytes:
    """Pickle a value. The error of one that cannot be pickled says which part of it cannot."""
    try:
        return bytes(dumps(obj))
    except (TypeError, AttributeError) as error:
        from mobula.util.check_serialize import inspect_serializability

        failures = inspect_serializability(obj, print_file=io.StringIO())[1]
        parts = ", ".join(sorted(repr(failure) for failure in failures))
        raise TypeError(f"Could not serialize {obj!r}: {error}. What cannot be pickled: {parts}") from error
