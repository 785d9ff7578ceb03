"""The command `mobula` of the package. If this fails, a person who has installed the package cannot look into it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mobula


@mobula.remote
def says_hello() -> None:
    print("hello")


@mobula.remote(max_concurrency=2)
class Endless:
    """Gives numbers until its process ends."""

    def pid(self) -> int:
        return os.getpid()

    def numbers(self) -> Iterator[int]:
        yield from itertools.count()


@pytest.fixture
def address(tmp_path: object) -> Iterator[str]:
    """A session that the command has started."""
    environment = {**os.environ, "MOBULA_SESSION_DIR": str(tmp_path)}
    started = run("start", "--num-cpus", "2", "--object-store-memory", "64MiB", environment=environment)
    assert started.returncode == 0, started.stderr
    yield started.stdout.strip()
    stopped = run("stop", started.stdout.strip())
    assert stopped.returncode == 0, stopped.stderr


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script that `pip` has installed beside the interpreter."""
    script = os.path.join(os.path.dirname(sys.executable), "mobula")
    return subprocess.run(
        [script, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_a_session_is_started_looked_into_and_stopped(address: str) -> None:
    mobula.init(address=address)
    try:
        held = mobula.put(b"x" * (1 << 20))
        status = run("status", "--json", "--socket", address)
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)
        drivers = run("list", "drivers", "--json", "--socket", address)
        assert str(os.getpid()) in drivers.stdout, drivers.stderr
        del held
    finally:
        mobula.shutdown()


def test_the_resources_of_a_shared_session_are_used_only_by_what_runs(address: str, tmp_path: Path) -> None:
    def used() -> float:
        status = json.loads(run("status", "--json", "--socket", address).stdout)
        return next(float(use["used"]) for use in status["session"]["resources"] if use["name"] == "CPU")

    def until(expected: float) -> None:
        end = time.monotonic() + 60
        while (now := used()) != expected:
            assert time.monotonic() < end, now

    mobula.init(address=address)
    try:
        endless = Endless.remote()
        mobula.get(endless.pid.remote())
        until(0)
        running = waits_for_a_file.remote(str(tmp_path / "end"))
        until(1)
        (tmp_path / "end").touch()
        mobula.get(running)
        until(0)
        mobula.kill(endless)
        with pytest.raises(mobula.exceptions.ActorDiedError):
            mobula.get(endless.pid.remote())
        actors = json.loads(run("list", "actors", "--json", "--socket", address).stdout)["actors"]
        assert [actor["death"] for actor in actors] == ["it was killed by `kill`"], actors
    finally:
        mobula.shutdown()


@mobula.remote
def waits_for_a_file(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


@pytest.mark.parametrize("way", [mobula.get, lambda ref: mobula.wait([ref])])
def test_a_long_wait_is_seen_as_one(address: str, tmp_path: Path, way: Callable[[Any], Any]) -> None:
    mobula.init(address=address)
    file = tmp_path / "end"
    ref = waits_for_a_file.remote(str(file))
    thread = threading.Thread(target=way, args=(ref,))
    thread.start()
    try:
        end = time.monotonic() + 60
        waited = 0.0
        # It lasts for much longer than the pause between two looks at signals.
        while waited < 0.3 and time.monotonic() < end:
            drivers = json.loads(run("list", "drivers", "--json", "--socket", address).stdout)["drivers"]
            waited = max([seconds for driver in drivers for _, seconds in driver["waits"]], default=0.0)
        assert waited >= 0.3, drivers
    finally:
        file.touch()
        thread.join()
        mobula.shutdown()


def test_a_stream_of_a_process_that_died_has_a_name(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBULA_EVENTS", "all")
    mobula.init(address=address)
    try:
        endless = Endless.remote()
        pid = mobula.get(endless.pid.remote())
        streams = [endless.numbers.options(num_returns="streaming").remote() for _ in range(2)]
        assert [mobula.get(next(stream)) for stream in streams] == [0, 0]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(mobula.exceptions.ActorDiedError):
            mobula.get(endless.pid.remote())
        found = run("postmortem", str(pid), "--json", "--socket", address)
        assert found.returncode == 0, found.stderr
        events = [event["text"] for event in json.loads(found.stdout)["events"]]
        began = [what for what in events if what.startswith("began")]
        assert sum(what.endswith(" of Endless::numbers") for what in began) == 2, events
    finally:
        mobula.shutdown()


def test_the_module_is_the_same_command() -> None:
    module = subprocess.run(
        [sys.executable, "-m", "mobula", "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    script = run("--help")
    assert (module.returncode, script.returncode) == (0, 0)
    assert "postmortem" in script.stdout and module.stdout == script.stdout


def test_exit_codes_say_what_went_wrong(address: str) -> None:
    assert run("nonsense").returncode == 2
    gone = run("kill", "1", "--socket", address)
    assert gone.returncode == 3 and gone.stderr.startswith("error: "), gone.stderr
    missing = run("status", "--socket", "/nowhere/store.sock")
    assert missing.returncode == 1 and missing.stderr.startswith("error: "), missing.stderr


def test_an_interrupt_ends_it(address: str) -> None:
    command = [sys.executable, "-m", "mobula", "logs", "--follow", "--socket", address]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert following.stdout is not None
        mobula.init(address=address)
        mobula.get(says_hello.remote())
        assert "hello" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=60) == -signal.SIGINT
    finally:
        following.kill()
        following.communicate()
        mobula.shutdown()
