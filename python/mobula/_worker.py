"""A worker: an interpreter that runs the calls of a session."""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
from types import FrameType, FunctionType, TracebackType
from typing import Any, NoReturn

from mobula import _context, _environments, _mobula, _session
from mobula._retries import results, text_and_pickle
from mobula.exceptions import TaskCancelledError

__all__ = ["describe", "flush", "function_of", "main", "method", "results", "runner"]


# Whether this process is an actor's. Its methods are not interrupted, because that could leave an invalid state.
_is_actor = False


def main(namespace: str, labels: dict[str, str] | None = None) -> None:
    """Take the role of the last argument, in a session with this namespace and these labels. Does not return.

    Drivers in other languages give no labels.
    """
    _session._set_namespace(namespace)
    _session._set_labels(labels or {})
    role = sys.argv.pop()
    signal.signal(signal.SIGINT, _interrupted)
    for name in ("stdout", "stderr"):
        stream = _by_lines(getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    _environments.enter()
    _mobula.run_role(role)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Interrupt the function that runs, if its call was cancelled: the core sends this process a signal then."""
    if not _is_actor and _mobula.is_cancelled():
        raise KeyboardInterrupt("the call was cancelled")


class _Lines(io.TextIOWrapper):
    """Output that appears line by line."""

    # Whether the last line has no end.
    is_open = False

    def write(self, text: str, /) -> int:
        written = super().write(text)
        if text:
            self.is_open = text[-1] != "\n"
        return written


def _by_lines(stream: Any) -> Any:
    """Return a standard stream as one whose lines appear at once, and whole."""
    if type(stream) is not io.TextIOWrapper:
        return stream
    encoding, errors = stream.encoding, stream.errors
    return _Lines(stream.detach(), encoding, errors, line_buffering=True)


def flush() -> None:
    """Flush the output of a process that has nothing to do. A line that has no end gets one: it appears, as in Ray."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            if isinstance(stream, _Lines) and stream.is_open:
                stream.write("\n")
            stream.flush()


def end() -> None:
    """End the process of an actor, after the destructor of its state: its exit handlers run."""
    atexit._run_exitfuncs()
    flush()


def leave(code: int) -> NoReturn:
    """End this process as an interpreter ends, from any thread."""
    atexit._run_exitfuncs()
    flush()
    os._exit(code)


def runner(description: str) -> Any:
    """Return the runner of the calls of an actor; ``None`` if they run one at a time."""
    global _is_actor
    _is_actor = True
    if not description:
        return None
    import json

    parsed = json.loads(description)
    _context.actor = {name: parsed[name] for name in ("name", "namespace", "resources") if name in parsed}
    if "async" not in parsed:
        return None
    from mobula import _concurrency

    return _concurrency.runner(parsed)


def method(state: Any, name: str) -> Any:
    """Return the method of an actor. Its retries, and the group that the call runs in, may follow the name."""
    name, _, retries = name.partition("\1")[0].partition("\2")
    if retries:
        from mobula._retries import again

        return again(method(state, name), retries)
    if name == "__ray_ready__":
        return lambda: True
    if name == "__ray_call__":
        return lambda function, *args, **kwargs: function(state, *args, **kwargs)
    if name in getattr(state, "__dict__", ()) and hasattr(type(state), name):
        # The state has an attribute with the name of a method. Callers mean the method.
        import inspect

        return inspect.getattr_static(type(state), name).__get__(state, type(state))
    return getattr(state, name)


def function_of(cls: type, name: str) -> FunctionType | None:
    """Return the function of a class that a method call can call directly, with the state first; ``None`` otherwise."""
    import inspect

    if name.startswith("__ray_") or "\1" in name or "\2" in name:
        return None
    found = inspect.getattr_static(cls, name, None)
    is_plain = inspect.getattr_static(cls, "__getattribute__") is object.__dict__["__getattribute__"]
    return found if is_plain and type(found) is FunctionType else None


def by_name(name: str) -> Any:
    """Return the function that a program of another language names: ``"module:name"``."""
    import importlib

    module, _, path = name.partition(":")
    if not path:
        raise ValueError(f"{name!r} is no Python function: expected the module, a colon, and the name in the module")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def describe(error: BaseException, raised_at: TracebackType | None) -> tuple[str, bytes | None]:
    """Return an exception's text with its traceback, and the exception itself, if it can be pickled."""
    if _is_actor and isinstance(error, SystemExit) and isinstance(error.code, int | None):
        # The actor ends, as a program would. The core ends one that has called `exit_actor`, which raises a text.
        leave(error.code or 0)
    error = error.with_traceback(raised_at)
    if isinstance(error, KeyboardInterrupt) and _mobula.is_cancelled():
        error = TaskCancelledError("the call was cancelled while it ran").with_traceback(raised_at)
    return text_and_pickle(error)
