"""One program on this package, and on Ray's own. If this fails, a program must be rewritten to run on a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import mobula

PROGRAM = Path(__file__).with_name("cluster_program.py")


def run(address: str | None) -> subprocess.CompletedProcess[str]:
    """Run the program at an address."""
    environment = {**os.environ, "PYTHONPATH": str(Path(mobula.__file__).parents[1])}
    environment.pop("MOBULA_ADDRESS", None)
    if address is not None:
        environment["MOBULA_ADDRESS"] = address
    return subprocess.run([sys.executable, PROGRAM], env=environment, capture_output=True, text=True, timeout=300)


def test_the_program_gives_the_same_on_both() -> None:
    here = run(None)
    assert here.returncode == 0, here.stderr
    assert len(here.stdout.splitlines()) > 10
    if PathFinder.find_spec("ray") is None:
        pytest.skip("Ray's own package is not installed: the program ran on mobula alone")
    there = run("ray:local")
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout


def test_without_ray_the_error_says_what_to_do() -> None:
    if PathFinder.find_spec("ray") is not None:
        pytest.skip("Ray's own package is installed")
    done = run("ray:auto")
    assert done.returncode != 0
    assert "pip install ray" in done.stderr
