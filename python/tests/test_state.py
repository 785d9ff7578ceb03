"""A program looks at its own session, with Ray's names. If this fails, scripts that list Ray's tasks find nothing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobula
from mobula.util.state import (
    get_actor,
    get_job,
    get_node,
    get_objects,
    get_task,
    get_worker,
    list_actors,
    list_jobs,
    list_nodes,
    list_objects,
    list_tasks,
    list_workers,
    summarize_actors,
    summarize_objects,
    summarize_tasks,
)

pytestmark = pytest.mark.usefixtures("recorded", "session")

SOON = 60


@pytest.fixture(scope="module")
def recorded() -> Iterator[None]:
    """Each process of the session records its calls."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MOBULA_EVENTS", "all")
        environment.setenv("MOBULA_CALL_SITES", "1")
        yield


def eventually(what: str, look: Any) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not after {SOON} s")


@mobula.remote
def runs_while(path: str) -> int:
    while Path(path).exists():
        time.sleep(0.01)
    return os.getpid()


@mobula.remote
def fails() -> None:
    raise ValueError("on purpose")


@mobula.remote
class Counter:
    def pid(self) -> int:
        return os.getpid()


@mobula.remote
class Awaits:
    async def gone(self, path: str) -> int:
        while Path(path).exists():
            await asyncio.sleep(0.01)
        return os.getpid()


def test_a_running_task_is_listed(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    running = runs_while.remote(str(gate))
    rows = eventually("it runs", lambda: list_tasks(filters=[("state", "=", "RUNNING")]))
    task = rows[0]
    assert task.name.endswith("runs_while") and task["state"] == "RUNNING" and task.type == "NORMAL_TASK"
    assert get_task(task.task_id).worker_pid == task.worker_pid
    eventually("its worker names it", lambda: get_worker(task.worker_id).running.endswith("runs_while"))
    assert list_tasks(filters=[("state", "!=", "RUNNING"), ("task_id", "=", task.task_id)]) == []
    gate.unlink()
    assert mobula.get(running) == task.worker_pid


def test_a_call_of_an_async_actor_runs_while_it_awaits(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    actor = Awaits.options(max_concurrency=1).remote()
    calls = [actor.gone.remote(str(gate)) for _ in range(2)]

    def listed(state: str) -> list[Any]:
        return list_tasks(filters=[("state", "=", state), ("name", "=", "Awaits.gone")])

    # The other call waits for the one place of the actor.
    (task,) = eventually("it runs", lambda: listed("RUNNING"))
    assert task.task_id == calls[0].task_id().hex() and listed("FINISHED") == []
    group = summarize_tasks()["cluster"]["summary"]["Awaits.gone"]
    assert group["state_counts"] == {"PENDING_NODE_ASSIGNMENT": 1, "RUNNING": 1}
    gate.unlink()
    assert mobula.get(calls) == [task.worker_pid] * 2
    eventually("both are over", lambda: len(listed("FINISHED")) == 2)
    assert listed("RUNNING") == []
    # The process that ran them has the times, under the name that the caller has.
    group = summarize_tasks()["cluster"]["summary"]["Awaits.gone"]
    assert group["state_counts"] == {"FINISHED": 2} and group["p50_s"] is not None


def test_failures_and_summaries() -> None:
    with pytest.raises(ValueError):
        mobula.get(fails.remote())
    rows = eventually("the failure is recorded", lambda: list_tasks(filters=[("state", "=", "FAILED")]))
    assert rows[0].error_type == "TASK_EXECUTION_EXCEPTION"
    summary = summarize_tasks()["cluster"]
    group = next(group for name, group in summary["summary"].items() if name.endswith("fails"))
    assert group["state_counts"]["FAILED"] == 1
    assert summary["summary_by"] == "func_name" and summary["total_tasks"] >= 1


def test_actors() -> None:
    actor = Counter.options(name="counter").remote()
    pid = mobula.get(actor.pid.remote())
    row = next(row for row in list_actors(filters=[("state", "=", "ALIVE")]) if row.name == "counter")
    assert (row.pid, row.class_name.endswith("Counter"), row.num_restarts) == (pid, True, 0)
    assert row.job_id == mobula.get_runtime_context().get_job_id()
    assert get_actor(row.actor_id).name == "counter"
    assert summarize_actors()["cluster"]["summary"][row.class_name]["state_counts"]["ALIVE"] >= 1


def test_objects_and_who_holds_them() -> None:
    kept = mobula.put(np.zeros(1_000_000))
    rows = [row for row in list_objects() if row.object_size >= 8_000_000]
    assert [row.pid for row in rows] == [os.getpid()]
    assert get_objects(rows[0].object_id)[0].object_size == rows[0].object_size
    array = mobula.get(kept)
    rows = get_objects(rows[0].object_id)
    assert [row.reference_type for row in rows] == ["PINNED_IN_MEMORY"]
    assert summarize_objects()["cluster"]["total_size_mb"] >= 7
    assert array.sum() == 0


def test_processes_and_the_program() -> None:
    assert any(row.worker_type == "DRIVER" and row.pid == os.getpid() for row in list_workers())
    (node,) = list_nodes()
    assert node.resources_total["CPU"] == 2 and node.state == "ALIVE"
    (job,) = list_jobs()
    assert job.job_id == mobula.get_runtime_context().get_job_id() and job.status == "RUNNING"


@mobula.remote
def names_itself() -> dict[str, Any]:
    context = mobula.get_runtime_context()
    return {"task": context.get_task_id(), "worker": context.get_worker_id(), "job": context.get_job_id()}


@mobula.remote
class Named:
    def ids(self) -> tuple[str, str, str]:
        context = mobula.get_runtime_context()
        return context.get_actor_id(), context.get_task_id(), context.get_worker_id()


def test_ids_are_those_that_the_program_sees() -> None:
    ref = names_itself.remote()
    ids = mobula.get(ref)
    row = eventually("the call is recorded", lambda: get_task(ref.task_id().hex()))
    assert (row.task_id, row.job_id) == (ids["task"], ids["job"])
    assert get_task(ref.task_id()).task_id == ids["task"]
    assert row.parent_task_id == mobula.get_runtime_context().get_task_id()
    assert get_worker(ids["worker"]).pid == row.worker_pid and row.worker_id == ids["worker"]
    assert get_job(ids["job"]).entrypoint and get_job(mobula.get_runtime_context().get_job_id()).type == "DRIVER"
    node = mobula.get_runtime_context().get_node_id()
    assert get_node(node).node_id == node == row.node_id == mobula.nodes()[0]["NodeID"]

    actor = Named.remote()
    call = actor.ids.remote()
    actor_id, task_id, worker_id = mobula.get(call)
    assert get_actor(actor_id).actor_id == actor_id == get_actor(actor._actor_id).actor_id
    assert get_worker(worker_id).pid == get_actor(actor_id).pid
    row = eventually("the method is recorded", lambda: get_task(task_id))
    assert row.actor_id == actor_id and row.type == "ACTOR_TASK" and row.name == "Named.ids"
    assert call.task_id().hex() == task_id


def test_ids_of_objects() -> None:
    kept = mobula.put(np.zeros(1000))
    (row,) = get_objects(kept.hex())
    assert row.object_id == kept.hex() and row.object_size >= 8000
    made = mobula.remote(lambda: np.zeros(100_000)).remote()
    mobula.get(made)
    # A result becomes an object with an id of its own.
    assert get_objects(made)[0].object_size >= 800_000


def test_places_where_objects_were_made() -> None:
    kept = mobula.put(np.ones(1000))
    (row,) = get_objects(kept.hex())
    assert "test_state.py:" in row.call_site
    summary = summarize_objects()["cluster"]
    assert summary["callsite_enabled"] is True
    assert summary["summary"][row.call_site]["total_objects"] >= 1
    assert summary["summary"][row.call_site]["total_num_workers"] == 1
    assert any(group["pid"] == os.getpid() for group in summary["holders"].values())


def test_a_function_with_a_dot_in_its_name_is_no_method() -> None:
    @mobula.remote
    def inner() -> int:
        return 1

    inner._function.__name__ = inner._name = "with.dot"
    actor = Counter.remote()
    mobula.get([inner.remote(), actor.pid.remote()])

    def kinds() -> Any:
        found = summarize_tasks()["cluster"]["summary"]
        return {name: group["type"] for name, group in found.items() if name in ("with.dot", "Counter.pid")}

    eventually("both are counted", lambda: kinds() == {"with.dot": "NORMAL_TASK", "Counter.pid": "ACTOR_TASK"})


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="no field 'nonsense'"):
        list_workers(filters=[("nonsense", "=", 1)])
    with pytest.raises(ValueError, match="predicate"):
        list_workers(filters=[("pid", "<", 1)])
    with pytest.raises(ValueError, match="limit"):
        list_workers(limit=0)


def test_the_timeline_is_a_file_for_viewers(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    assert mobula.timeline(str(path)) is None
    events = json.loads(path.read_text())
    assert any(event["ph"] == "M" and event["name"] == "process_name" for event in events)
    assert mobula.timeline()
