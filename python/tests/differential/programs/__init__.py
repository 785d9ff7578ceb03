"""Small programs over the whole of Ray's public API. Each function of an area without a leading ``_`` is a program.

A program returns what it is about: results, errors, and their order where Ray promises one. It runs with Ray's own
package and with this one, and what it returns must be the same. ``INIT`` of an area holds the arguments of its session;
``None`` says that its programs start their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray


def raised(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return which classes the error of a call has: those that a program may catch it by."""
    try:
        value = call(*args, **kwargs)
    except BaseException as error:
        return classes(error)
    return f"no error: {value!r}"


def said(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the class and the text of the error of a call."""
    try:
        value = call(*args, **kwargs)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return f"no error: {value!r}"


def classes(error: BaseException) -> str:
    """Return the names of the classes of an error, with those of Ray first."""
    of_ray = [
        name
        for name, cls in sorted(vars(ray.exceptions).items())
        if isinstance(cls, type) and issubclass(cls, ray.exceptions.RayError) and isinstance(error, cls)
    ]
    cause = getattr(error, "cause", None) if of_ray else error
    bases = type(cause).__mro__ if isinstance(cause, BaseException) else ()
    others = [cls.__name__ for cls in bases if cls.__module__ != "ray.exceptions" and cls.__name__ not in of_ray]
    found = [cls for cls in others if cls not in ("object", "BaseException", "cls") and "RayTaskError(" not in cls]
    if not isinstance(cause, BaseException):
        found = [cls.__name__ for cls in (TimeoutError,) if isinstance(error, cls)]
    return " ".join([*of_ray, *found])


def until(holds: Callable[[], bool]) -> bool:
    """Wait for a condition."""
    deadline = time.monotonic() + 40
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
