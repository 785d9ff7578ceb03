"""Runs the programs of an area, and writes what each returns as a line of JSON: ``run.py AREA [PROGRAM…]``."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import signal
import sys
import tempfile
from types import FrameType, ModuleType
from typing import Any

# No program takes as long, with Ray either.
SECONDS_MAX = 90


class TookTooLongError(BaseException):
    """A program waits for something that does not come."""


def programs_of(module: ModuleType) -> dict[str, Any]:
    """Return the programs of an area in their order."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def shown(value: Any) -> str:
    """Return a value as text that is the same in each run."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({', '.join(map(shown, value.args))})"
    if type(value) in (list, tuple, set, frozenset):
        parts = [shown(part) for part in value]
        if isinstance(value, set | frozenset):
            parts.sort()
        text = ", ".join(parts)
        if type(value) in (list, tuple):
            return f"[{text}]" if type(value) is list else f"({text}{',' * (len(parts) == 1)})"
        return f"{type(value).__name__}({text})"
    if type(value) is dict:
        return f"{{{', '.join(f'{shown(key)}: {shown(of)}' for key, of in value.items())}}}"
    if type(value).__module__.startswith("numpy"):
        import numpy

        if isinstance(value, numpy.ndarray):
            return f"{type(value).__name__}({value.dtype}, {value.shape}, {value.tolist()!r})"
        return f"{type(value).__name__}({value})"
    return repr(value)


def outcome(program: Any) -> str:
    """Run a program."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TookTooLongError

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS_MAX)
    try:
        with tempfile.TemporaryDirectory() as directory:
            text = shown(program(directory) if inspect.signature(program).parameters else program())
    except BaseException as error:
        text = f"raises {type(error).__name__}: {str(error).strip().splitlines()[-1:]}"
    finally:
        signal.alarm(0)
    # Ids and addresses are different in each run.
    return re.sub(r"(ObjectRef\(|Actor\(\w+, |at 0x)\w+", r"\1…", text)


def main() -> None:
    """Run the programs of the area that the command line names."""
    area, *wanted = sys.argv[1:]
    # The output of programs and of Ray is not compared.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import ray

    module = importlib.import_module(f"programs.{area}")
    options = getattr(module, "INIT", {"num_cpus": 4})
    fixed: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if options is not None:
        ray.init(**fixed, **options)
    for name, program in programs_of(module).items():
        if not wanted or name in wanted:
            print(json.dumps([name, outcome(program)]), file=out)
            if options is None:
                ray.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
