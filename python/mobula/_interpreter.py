"""Which interpreters this package works in. Imported first, so that others are refused before anything is loaded."""

from __future__ import annotations

import importlib
import sys


def check() -> None:
    """Refuse interpreters that the extension module cannot work in."""
    if "t" in getattr(sys, "abiflags", ""):
        raise ImportError(
            "mobula needs an interpreter with the global interpreter lock, and this is a free-threaded build: use the "
            "ordinary build of the same version of Python"
        )
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "mobula cannot be imported in a subinterpreter: a process is one part of a session. Import it in the "
                "main interpreter, and use its processes in place of interpreters"
            )
        return


check()
