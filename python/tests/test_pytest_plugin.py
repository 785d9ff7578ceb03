"""The plugin of pytest: if these fail, the tests of a program have no session, or leave processes unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = """
    import os, subprocess, sys, time
    import pytest

    def test_a_call(mobula_session):
        assert mobula_session.get(mobula_session.remote(pow).remote(2, 3)) == 8
        assert mobula_session.cluster_resources()["CPU"] == 3

    def test_what_is_left_is_found(mobula_session, request):
        from mobula import pytest_plugin
        # The store and three workers, which start while the session is used already.
        end = time.monotonic() + 60
        while len(before := pytest_plugin._children()) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(before) == 4
        child = subprocess.Popen([sys.executable, "-c", "input()  # mobula"], stdin=subprocess.PIPE)
        left = f"process {child.pid} ({sys.executable} -c input()  # mobula)"
        # A program that has just begun has no arguments yet, by which it is told from others.
        while not pytest_plugin._left(before, "/nowhere") and time.monotonic() < end:
            time.sleep(0.01)
        assert pytest_plugin._left(before, "/nowhere") == [left]
        child.communicate()
        assert pytest_plugin._left(before, "/nowhere") == []
        assert pytest_plugin._left(before, os.getcwd()) == [f"the directory {os.getcwd()}"]
"""

FRESH = """
    def test_a_fresh_session(mobula_fresh):
        assert mobula_fresh.get(mobula_fresh.put(1)) == 1

    def test_another(mobula_fresh):
        assert mobula_fresh.get(mobula_fresh.put(2)) == 2
"""


def test_sessions_and_what_they_leave(tmp_path: Path) -> None:
    for name, text in (("test_session.py", TESTS), ("test_fresh.py", FRESH)):
        (tmp_path / name).write_text(textwrap.dedent(text))
        # Where the package is not installed, the plugin is named.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "mobula.pytest_plugin", "--mobula-cpus=3", name]
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
