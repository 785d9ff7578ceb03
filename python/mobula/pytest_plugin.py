"""Sessions for tests by pytest, and a check that they leave nothing.

Installing the package installs the plugin::

    def test_square(mobula_session):
        assert mobula_session.get(square.remote(3)) == 9
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

# A session that ends has so long to end its processes.
_END_S = 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("mobula")
    group.addoption(
        "--mobula-cpus", type=int, default=2, help="how many CPUs the calls of a test's session have (default: 2)"
    )


@pytest.fixture(scope="session")
def mobula_session(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """One session of mobula for all tests. Gives the module ``mobula``."""
    yield from _session(request)


@pytest.fixture
def mobula_fresh(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A session of mobula for one test. It cannot be used beside ``mobula_session``."""
    yield from _session(request)


def _session(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    import mobula

    before = _children()
    context = mobula.init(num_cpus=request.config.getoption("--mobula-cpus"))
    yield mobula
    # The test may have ended the session, and started others.
    mobula.shutdown()
    deadline = time.monotonic() + _END_S
    while (left := _left(before, context["session_dir"])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"the session of mobula has ended, and left {', '.join(left)}"


def _left(before: set[int], directory: str) -> list[str]:
    """What there is that was not there before the session: processes, and its directory."""
    left = [f"process {process} ({_command(process)})" for process in sorted(_children() - before)]
    if os.path.exists(directory):
        left.append(f"the directory {directory}")
    return left


def _children() -> set[int]:
    """The processes that this process has started, and that mobula's sessions consist of."""
    children: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                children.update(int(child) for child in file.read().split())
        except FileNotFoundError:
            # The thread has ended.
            continue
    return {child for child in children if "mobula" in _command(child)}


def _command(process: int) -> str:
    try:
        with open(f"/proc/{process}/cmdline") as file:
            return file.read().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
