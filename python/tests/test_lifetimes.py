"""How actors begin and end. If these fail, a destructor does not run, or an actor comes back, or is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mobula as ray
from mobula.exceptions import ActorDiedError, PendingCallsLimitExceeded, RayActorError
from mobula.util import list_named_actors

pytestmark = pytest.mark.usefixtures("session")

PATIENCE = 60


def eventually(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)


def note(log: Path, what: str) -> None:
    with log.open("a") as file:
        file.write(f"{what}\n")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@ray.remote(num_cpus=0)
class Noted:
    def __init__(self, log: Path) -> None:
        self.log = log
        note(log, "restarted" if ray.get_runtime_context().was_current_actor_reconstructed else "born")

    def note(self, what: str) -> int:
        note(self.log, what)
        return os.getpid()

    def wait_for(self, path: Path) -> None:
        while not path.exists():
            time.sleep(0.01)

    def retire(self) -> None:
        try:
            ray.actor.exit_actor()
        except Exception:
            note(self.log, "not an Exception")

    def __del__(self) -> None:
        note(self.log, "dropped")


def test_an_actor_that_exits_is_dropped_and_does_not_come_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    noted = Noted.options(max_restarts=-1, max_task_retries=-1).remote(log)
    process = ray.get(noted.note.remote("one"))
    end, behind = noted.retire.remote(), noted.note.remote("behind")
    for failed in (end, behind, noted.note.remote("late")):
        with pytest.raises(ActorDiedError, match="exit_actor"):
            ray.get(failed)
    eventually("its process ends", lambda: not is_running(process))
    assert log.read_text().split() == ["born", "one", "dropped"]
    with pytest.raises(TypeError, match="non-actor worker"):
        ray.actor.exit_actor()


def test_terminate_finishes_what_was_called_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    noted = Noted.options(name="noted", max_restarts=-1).remote(log)
    calls = [noted.note.remote(str(number)) for number in range(20)]
    end = noted.__ray_terminate__.remote()
    with pytest.raises(RayActorError):
        ray.get(end)
    process = ray.get(calls)[0]
    eventually("its process ends", lambda: not is_running(process))
    assert log.read_text().split() == ["born", *map(str, range(20)), "dropped"]
    with pytest.raises(ValueError):
        ray.get_actor("noted")


@pytest.mark.parametrize("concurrency", [{}, {"max_concurrency": 3}])
def test_an_asynchronous_or_threaded_actor_exits(concurrency: dict[str, Any]) -> None:
    @ray.remote(num_cpus=0, **concurrency)
    class Many:
        if not concurrency:

            async def hi(self) -> int:
                return os.getpid()

        def exit(self) -> None:
            ray.actor.exit_actor()

        def process(self) -> int:
            return os.getpid()

    many = Many.options(max_restarts=-1).remote()
    process = ray.get(many.process.remote())
    with pytest.raises(ActorDiedError, match="exit_actor"):
        ray.get(many.exit.remote())
    eventually("its process ends", lambda: not is_running(process))


def test_names_are_listed_with_their_namespaces(tmp_path: Path) -> None:
    here = Noted.options(name="here").remote(tmp_path / "log")
    there = Noted.options(name="there", namespace="other").remote(tmp_path / "log")
    assert list_named_actors() == ["here"]
    listed = list_named_actors(all_namespaces=True)
    assert {"name": "there", "namespace": "other"} in listed and len(listed) == 2
    in_worker: Any = ray.remote(list_named_actors)
    assert ray.get(in_worker.remote()) == ["here"]
    again = Noted.options(name="there", namespace="other", get_if_exists=True).remote(tmp_path / "log")
    assert again == there != here
    assert ray.get(again.note.remote("found")) == ray.get(there.note.remote("found"))
    with pytest.raises(ValueError, match="taken"):
        Noted.options(name="here").remote(tmp_path / "log")


def test_a_detached_actor_that_a_task_made_is_kept_when_its_process_restarts(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def make() -> int:
        options = {"name": "kept", "lifetime": "detached", "max_restarts": 2}
        return int(ray.get(Noted.options(**options).remote(log).note.remote("made")))

    process = ray.get(ray.remote(make).remote())
    os.kill(process, signal.SIGKILL)
    eventually("it has no process", lambda: not is_running(process))
    found = ray.get_actor("kept")
    now = ray.get(found.note.remote("found"))
    assert now != process
    ray.kill(found)
    assert log.read_text().split() == ["born", "made", "restarted", "found"]


def test_so_many_calls_are_pending(tmp_path: Path) -> None:
    path = tmp_path / "path"
    noted = Noted.options(max_pending_calls=2).remote(tmp_path / "log")
    calls = [noted.wait_for.remote(path), noted.note.remote("second")]
    with pytest.raises(PendingCallsLimitExceeded, match="max_pending_calls"):
        noted.note.remote("third")
    path.touch()
    ray.get(calls)
    for _ in range(100):
        ray.get(noted.note.remote("next"))
    with pytest.raises(ValueError, match="max_pending_calls"):
        Noted.options(max_pending_calls=-2)


def test_an_actor_that_gets_sigterm_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    noted = Noted.options(max_restarts=1).remote(log)
    os.kill(ray.get(noted.note.remote("one")), signal.SIGTERM)
    eventually("it starts again", lambda: log.read_text().split()[-1] == "restarted")
    assert log.read_text().split() == ["born", "one", "dropped", "restarted"]


@pytest.mark.parametrize("way", ["__ray_terminate__", "the last handle"])
def test_the_exit_handlers_of_an_actor_run_at_its_end(tmp_path: Path, way: str) -> None:
    @ray.remote(num_cpus=0)
    class Registers:
        def __init__(self, log: Path) -> None:
            import atexit

            self.log = log
            atexit.register(note, log, "handler")

        def __del__(self) -> None:
            note(self.log, "destructor")

    log = tmp_path / "log"
    actor = Registers.remote(log)
    ray.get(actor.__ray_ready__.remote())
    if way == "__ray_terminate__":
        ray.wait([actor.__ray_terminate__.remote()])
    del actor
    eventually("both ran", lambda: log.exists() and log.read_text() == "destructor\nhandler\n")


@pytest.mark.parametrize("is_async", [False, True])
def test_calls_that_wait_for_a_place_outlive_the_process(tmp_path: Path, is_async: bool) -> None:
    class Waits:
        def wait(self, number: int) -> int:
            (tmp_path / f"{number} began").touch()
            while not (tmp_path / "open").exists():
                time.sleep(0.001)
            return os.getpid()

    class WaitsAsync:
        async def wait(self, number: int) -> int:
            import asyncio

            (tmp_path / f"{number} began").touch()
            while not (tmp_path / "open").exists():
                await asyncio.sleep(0.001)
            return os.getpid()

    options = {"num_cpus": 0, "max_concurrency": 2, "max_restarts": 1, "max_task_retries": 0}
    waits = ray.remote(**options)(WaitsAsync if is_async else Waits).remote()
    calls = [waits.wait.remote(number) for number in range(6)]
    eventually("two begin", lambda: all((tmp_path / f"{number} began").exists() for number in range(2)))
    ray.kill(waits, no_restart=False)
    for call in calls[:2]:
        with pytest.raises(ray.exceptions.ActorUnavailableError):
            ray.get(call, timeout=PATIENCE)
    (tmp_path / "open").touch()
    assert len(set(ray.get(calls[2:], timeout=PATIENCE))) == 1
    # The others run, however long they wait for a place.
    last = [waits.wait.remote(number) for number in range(6)]
    ended = waits.__ray_terminate__.remote()
    assert len(ray.get(last, timeout=PATIENCE)) == 6
    with pytest.raises(ActorDiedError):
        ray.get(ended, timeout=PATIENCE)
