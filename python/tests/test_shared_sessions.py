"""Sessions that programs share: if these fail, a program does not find another one's session, actors or objects."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import mobula

DRIVER = """
import sys
import mobula

@mobula.remote
def double(x):
    return 2 * x

@mobula.remote
class Counter:
    def __init__(self):
        self.count = 0

    def increment(self):
        self.count += 1
        return self.count

mobula.init(address=sys.argv[1])
assert mobula.cluster_resources()["CPU"] == 2.0
assert mobula.get([double.remote(x) for x in range(50)]) == [2 * x for x in range(50)]
if sys.argv[2] == "keep":
    counter = Counter.options(name="kept", lifetime="detached", max_restarts=1).remote()
    print(mobula.get(counter.increment.remote()), flush=True)
elif sys.argv[2] == "kept":
    counter = mobula.get_actor("kept")
    print(mobula.get(counter.increment.remote()), flush=True)
elif sys.argv[2] == "end":
    mobula.kill(mobula.get_actor("kept"))
    try:
        mobula.get_actor("kept")
    except ValueError:
        print("gone", flush=True)
elif sys.argv[2] == "serve":
    counter = Counter.options(name="counter").remote()
    print(mobula.get(counter.increment.remote()), flush=True)
    sys.stdin.read()
else:
    print(mobula.get(mobula.get_actor("counter").increment.remote()), flush=True)
mobula.shutdown()
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mobula", *arguments], stdout=subprocess.PIPE, text=True, timeout=120, check=False
    )


def driver(address: str, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, address, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_programs_share_a_session_and_call_each_others_actors(tmp_path: object) -> None:
    os.environ["MOBULA_SESSION_DIR"] = str(tmp_path)
    try:
        started = command("start", "--num-cpus", "2", "--object-store-memory", str(64 << 20))
    finally:
        del os.environ["MOBULA_SESSION_DIR"]
    assert started.returncode == 0
    address = started.stdout.strip()
    try:
        serving = driver(address, "serve")
        assert serving.stdout is not None and serving.stdout.readline() == "1\n"
        calling = driver(address, "call")
        assert calling.communicate(timeout=120)[0] == "2\n"
        serving.communicate(timeout=120)
        assert (serving.returncode, calling.returncode) == (0, 0)
    finally:
        assert command("stop", address).returncode == 0
    assert not os.path.exists(address)


def test_a_detached_actor_outlives_the_program_that_made_it(tmp_path: object) -> None:
    os.environ["MOBULA_SESSION_DIR"] = str(tmp_path)
    try:
        address = command("start", "--num-cpus", "2", "--object-store-memory", str(64 << 20)).stdout.strip()
    finally:
        del os.environ["MOBULA_SESSION_DIR"]
    try:
        for what, printed in [("keep", "1\n"), ("kept", "2\n"), ("kept", "3\n"), ("end", "gone\n"), ("keep", "1\n")]:
            program = driver(address, what)
            # The end of its output comes with its own end, and not with that of its actor.
            assert program.communicate(timeout=120)[0] == printed
            assert program.returncode == 0
    finally:
        assert command("stop", address).returncode == 0
    assert not os.path.exists(address)


def test_an_address_without_a_session_is_an_error(tmp_path: object) -> None:
    with pytest.raises(ValueError, match="address cannot be"):
        mobula.init(address=str(tmp_path))
    assert not mobula.is_initialized()
