"""The data that a call can ask for about itself. If this fails, a program logs wrong data, or uses a wrong id as a
key."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

import mobula as ray

pytestmark = pytest.mark.usefixtures("session")


@ray.remote
def ids() -> tuple[Any, ...]:
    context = ray.get_runtime_context()
    return context.get_task_id(), context.get_attempt_number(), context.get_actor_id()


def test_a_call_has_the_id_of_its_reference() -> None:
    refs = [ids.remote() for _ in range(20)]
    found = ray.get(refs)
    assert [task for task, *_ in found] == [ref.task_id().hex() for ref in refs]
    assert len({task for task, *_ in found}) == 20
    assert {(attempt, actor) for _, attempt, actor in found} == {(0, None)}
    assert ray.put(1).task_id().is_nil()


def test_an_attempt_has_the_id_of_the_call(tmp_path: Any) -> None:
    @ray.remote(max_retries=2)
    def dies_twice(path: str) -> tuple[Any, ...]:
        with open(path, "a") as file:
            file.write("x")
        context = ray.get_runtime_context()
        with open(f"{path}.{context.get_attempt_number()}", "w") as file:
            file.write(context.get_task_id())
        if os.path.getsize(path) < 3:
            os._exit(1)
        return context.get_attempt_number(), context.get_task_id()

    ref = dies_twice.remote(str(tmp_path / "tried"))
    assert ray.get(ref) == (2, ref.task_id().hex())
    assert [(tmp_path / f"tried.{attempt}").read_text() for attempt in range(3)] == [ref.task_id().hex()] * 3


class Asks:
    def __init__(self) -> None:
        self.actor_id = ray.get_runtime_context().get_actor_id()

    def ask(self) -> tuple[Any, ...]:
        context = ray.get_runtime_context()
        return context.get_actor_id(), context.get_task_id(), context.get_task_name(), self.actor_id

    def resources(self) -> dict[str, float]:
        return ray.get_runtime_context().get_assigned_resources()


class AsksSlowly(Asks):
    async def ask(self) -> tuple[Any, ...]:  # type: ignore[override]
        return super().ask()

    async def ask_all(self, n: int) -> Any:
        for _ in range(n):
            yield super().ask()


@pytest.mark.parametrize(("cls", "options"), [(Asks, {}), (Asks, {"max_concurrency": 3}), (AsksSlowly, {})])
def test_the_ids_of_an_actor_and_its_calls(cls: Any, options: Any) -> None:
    actor = ray.remote(num_cpus=0, **options)(cls).remote()
    refs = [actor.ask.remote() for _ in range(20)]
    name = f"{cls.__name__}.ask"
    own = actor._actor_id.hex()
    assert ray.get(refs) == [(own, ref.task_id().hex(), name, own) for ref in refs]


def test_a_stream_of_an_asynchronous_actor_knows_its_call() -> None:
    actor = ray.remote(num_cpus=0)(AsksSlowly).remote()
    found = [ray.get(ref) for ref in actor.ask_all.remote(3)]
    assert len({task for _, task, *_ in found}) == 1 and found[0][2] == "AsksSlowly.ask_all"


def test_the_name_and_the_resources_of_a_call() -> None:
    @ray.remote
    def ask() -> tuple[Any, ...]:
        context = ray.get_runtime_context()
        return context.get_task_name(), context.get_task_function_name(), context.get_assigned_resources()

    function = "test_the_name_and_the_resources_of_a_call.<locals>.ask"
    assert ray.get(ask.remote()) == (function, function, {"CPU": 1.0})
    assert ray.get(ask.options(name="mine", num_cpus=0.5).remote()) == ("mine", function, {"CPU": 0.5})
    # The next call does not have the data of the call before.
    assert ray.get(ask.remote()) == (function, function, {"CPU": 1.0})
    actor = ray.remote(num_cpus=0.25)(Asks).remote()
    assert ray.get(actor.resources.remote()) == {"CPU": 0.25}


def test_the_ids_of_processes_and_machines() -> None:
    @ray.remote
    def ask() -> tuple[str, str, str]:
        context = ray.get_runtime_context()
        return context.get_job_id(), context.get_node_id(), context.get_worker_id()

    context = ray.get_runtime_context()
    job, node, worker = ray.get(ask.remote())
    assert (job, node) == (context.get_job_id(), context.get_node_id()) and worker != context.get_worker_id()
    assert [len(text) for text in (job, node, worker)] == [8, 56, 56]
    assert node == ray.nodes()[0]["NodeID"]


def test_ids_are_values() -> None:
    one = ray.ActorID.from_random()
    assert ray.ActorID.from_hex(one.hex()) == one == pickle.loads(pickle.dumps(one))
    assert len({one, ray.ActorID(one.binary()), ray.ActorID.nil()}) == 2 and ray.ActorID.nil().is_nil()
    with pytest.raises(ValueError, match="16 bytes"):
        ray.ActorID(b"short")


def test_labels_and_groups_of_the_context() -> None:
    ray.shutdown()
    ray.init(num_cpus=2, labels={"zone": "here"})
    labels = ray.remote(lambda: (ray.get_runtime_context().get_node_labels(), ray.nodes()[0]["Labels"]))
    assert ray.get(labels.remote()) == ({"zone": "here"}, {"zone": "here"})
    context = ray.get_runtime_context()
    assert context.get_resource_ids() == context.get_accelerator_ids()
    assert context.get_placement_group_id() is None and not context.should_capture_child_tasks_in_placement_group
    with pytest.raises(RuntimeError, match="worker"):
        context.is_canceled()
    assert ray.JobID.from_int(context.job_id.int()) == ray.JobID.from_binary(context.job_id.binary()) == context.job_id


def test_a_method_sees_that_it_was_cancelled(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    @ray.remote
    class Patient:
        def wait(self) -> None:
            begun.touch()
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)

        def answer(self) -> int:
            return 1

    actor = Patient.remote()
    call = actor.wait.remote()
    while not begun.exists():
        time.sleep(0.01)
    ray.cancel(call)
    # The next call begins behind it.
    assert ray.get(actor.answer.remote()) == 1


def test_a_stream_tells_what_is_there() -> None:
    stream = ray.remote(lambda: (number for number in range(2))).options(num_returns="streaming").remote()
    while not stream.next_ready():
        time.sleep(0.01)
    assert [ray.get(ref) for ref in stream] == [0, 1]
    assert stream.is_finished() and not stream.next_ready()
