"""Interpreters that mobula does not run in. If this fails, a program breaks later, and nobody knows why."""

from __future__ import annotations

import subprocess
import sys


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
