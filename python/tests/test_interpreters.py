"""Interpreters that mobula does not support. If this fails, a program breaks later, without a clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_free_threaded_build_is_refused() -> None:
    program = """
import sys
sys.abiflags = "t"
try:
    import mobula
except ImportError as error:
    print(error)
"""
    assert "free-threaded build" in run(program)


INNER = """
import sys
sys.path[:] = {path!r}
try:
    import mobula
except ImportError as error:
    print("refused:", error, flush=True)
"""


def test_a_subinterpreter_is_refused_and_the_main_one_goes_on() -> None:
    program = f"""
import sys
try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        print("there are none")
        sys.exit()
import mobula

inner = interpreters.create()
run = getattr(interpreters, "run_string", None) or interpreters.exec
run(inner, {INNER.format(path=sys.path)!r})
interpreters.destroy(inner)

@mobula.remote
def double(x):
    return 2 * x

print(mobula.get(double.remote(21)))
"""
    output = run(program)
    if "there are none" in output:
        pytest.skip("this interpreter has no module for subinterpreters")
    assert "refused: mobula cannot be imported in a subinterpreter" in output and output.endswith("42\n")
