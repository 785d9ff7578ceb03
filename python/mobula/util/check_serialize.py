"""Why something cannot be pickled."""

from __future__ import annotations

import inspect
from typing import Any

from mobula._serialization import dumps


class FailureTuple:
    """What cannot be pickled, its name, and what refers to it."""

    def __init__(self, obj: Any, name: str, parent: Any) -> None:
        self.obj, self.name, self.parent = obj, name, parent

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [obj={self.obj}, parent={self.parent}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: Any = None
) -> tuple[bool, set[FailureTuple]]:
    """Say whether something can be pickled, and if not, find what in it cannot.

    Returns whether it can, and the innermost things that cannot; what was looked at is printed. ::

        import threading
        from mobula.util import inspect_serializability

        lock = threading.Lock()

        def locked():
            return lock

        can, failures = inspect_serializability(locked, name="locked")
        assert not can and [failure.name for failure in failures] == ["lock"]

    Args:
        base_obj: A function, a class, or a value.
        name: How it is called in what is printed.
        depth: How deep to look.
        print_file: Where to print.
    """
    found: dict[int, FailureTuple] = {}
    _inspect(base_obj, name or str(base_obj), None, depth, found, print_file)
    return not found, set(found.values())


def _can(thing: Any) -> bool:
    try:
        dumps(thing)
    except Exception as error:
        return isinstance(error, RecursionError)
    return True


def _inspect(thing: Any, name: str, parent: Any, depth: int, found: dict[int, FailureTuple], file: Any) -> None:
    if _can(thing):
        return
    print(f"!!! {name} of {type(thing).__name__} cannot be pickled", file=file)
    parts = _parts(thing) if depth > 0 else []
    bad = [(part_name, part) for part_name, part in parts if not _can(part)]
    if not bad:
        found.setdefault(id(thing), FailureTuple(thing, name, parent))
    for part_name, part in bad:
        _inspect(part, part_name, thing, depth - 1, found, file)


def _parts(thing: Any) -> list[tuple[str, Any]]:
    """What something refers to, with the names that it has there."""
    if inspect.isfunction(thing):
        closure = inspect.getclosurevars(thing)
        return [*closure.nonlocals.items(), *closure.globals.items()]
    if isinstance(thing, dict):
        return [(str(key), value) for key, value in thing.items()]
    if isinstance(thing, list | tuple | set | frozenset):
        return [(f"[{place}]", value) for place, value in enumerate(thing)]
    members = vars(thing).items() if hasattr(thing, "__dict__") else []
    return [(name, value) for name, value in members if not name.startswith("__")]


__all__ = ["FailureTuple", "inspect_serializability"]
