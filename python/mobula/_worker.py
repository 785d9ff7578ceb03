"""A worker: an interpreter that runs what a session hands it."""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from types import TracebackType
from typing import Any

from mobula import _mobula
from mobula.exceptions import RayTaskError


def main() -> None:
    """Become what the last argument says. Does not return."""
    role = sys.argv.pop()
    for stream in (sys.stdout, sys.stderr):
        # Lines appear at once, and whole.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    _mobula.run_role(role)


def flush() -> None:
    """Write out what was printed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def runner(description: str) -> Any:
    """Return what runs the calls of an actor; ``None``: they run one at a time."""
    if not description:
        return None
    from mobula import _concurrency

    return _concurrency.runner(description)


def method(state: Any, name: str) -> Any:
    """Return the method of an actor. Behind the name may be the group that the call runs in."""
    name = name.partition("\1")[0]
    if name == "__ray_ready__":
        return lambda: True
    if name == "__ray_terminate__":
        from mobula._actor import exit_actor

        return exit_actor
    return getattr(state, name)


def results(result: Any, count: int) -> list[Any]:
    """Return the results of a call that has several."""
    values = list(result) if hasattr(result, "__iter__") else None
    if values is None or len(values) != count:
        found = f"{len(values)} of them" if values is not None else f"{type(result)}"
        raise ValueError(f"the function was to return num_returns={count} objects, and returned {found}")
    return values


def describe(error: BaseException, raised_at: TracebackType | None) -> tuple[str, bytes | None]:
    """Return an exception's text with its traceback, and the exception itself, if it can be pickled."""
    error = error.with_traceback(raised_at)
    text = "".join(traceback.format_exception(error))
    try:
        from mobula._serialization import dumps

        # What was raised elsewhere is told once.
        pickled = dumps(error.cause if isinstance(error, RayTaskError) else error)
        pickle.loads(pickled)
    except Exception:
        pickled = None
    return text, pickled
