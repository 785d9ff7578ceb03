"""``get_runtime_context``: the running call, the actor and the session of a process."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from mobula import _environments, _ids, _mobula, _session
from mobula._actor import found_by_name

# Accelerators of Ray that have no names here: they are plain resources.
_OTHER_ACCELERATORS = ("HPU", "NPU", "TPU", "neuron_cores")

# The name, the class and the resources of the actor of this process, if it has them. `_worker` sets them.
actor: dict[str, Any] = {}


class RuntimeContext:
    """The context of this process: its running call, its actor, and its session."""

    @property
    def namespace(self) -> str:
        """The namespace of named actors."""
        return _session.namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor of this process was restarted after an earlier process of it died."""
        return _mobula.restarted()

    def get_node_id(self) -> str:
        """Return the id of this machine, as hexadecimal digits."""
        return _ids.of_machine().hex()

    def get_worker_id(self) -> str:
        """Return the id of this process in its session, as hexadecimal digits."""
        return _ids.of_process(_mobula.process_id()).hex()

    def get_task_id(self) -> str | None:
        """Return the id of the running call, as hexadecimal digits. The references to its results have the same id.

        In a driver it is an id that no call has.
        """
        if not _mobula.is_worker():
            return self.get_job_id().rjust(2 * _ids.TaskID.SIZE, "f")
        found = running_call()
        return None if found is None else _ids.of_task(found[0]).hex()

    def get_attempt_number(self) -> int:
        """Return the number of retries of the running call so far."""
        found = running_call()
        return 0 if found is None else found[1]

    def get_task_name(self) -> str | None:
        """Return the name of the running call, or of its function if the call has no name."""
        found = running_call()
        return None if found is None else _told(found).get("name") or found[2]

    def get_task_function_name(self) -> str | None:
        """Return the name of the function or the method that runs."""
        found = running_call()
        return None if found is None else found[2]

    def get_assigned_resources(self) -> dict[str, float]:
        """Return the resources that the running call demands, or that the actor has."""
        if not _mobula.is_worker():
            raise RuntimeError("This method is only available in a worker.")
        if _mobula.actor_number() is not None:
            return dict(actor.get("resources") or {})
        found = running_call()
        return {} if found is None else {"CPU": 1.0, **(_told(found).get("resources") or {})}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Return the names of the accelerators that the running call, or the actor, has."""
        return {"GPU": [str(gpu) for gpu in _session.get_gpu_ids()], **{name: [] for name in _OTHER_ACCELERATORS}}

    def get_resource_ids(self) -> dict[str, list[str]]:
        """Return the same as :meth:`get_accelerator_ids`, which is its new name."""
        return self.get_accelerator_ids()

    def get_node_labels(self) -> dict[str, str]:
        """Return the labels that ``init`` was given."""
        return dict(_session.labels)

    def get_placement_group_id(self) -> str | None:
        """Return the id of the placement group that captures what the running call makes, if there is one."""
        found = _environments.capturing_group()
        return None if found is None else f"{found[0]:016x}"

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether a placement group captures what the running call makes."""
        return _environments.capturing_group() is not None

    def is_canceled(self) -> bool:
        """Whether the running call was cancelled. A method of an actor is not interrupted, and may look.

        Raises:
            RuntimeError: This process is a driver.
        """
        if not _mobula.is_worker():
            raise RuntimeError("This method is only available in a worker.")
        return _mobula.is_cancelled()

    def get_runtime_env_string(self) -> str:
        """Return the environment that the program gave this process, as JSON."""
        return json.dumps(self.runtime_env)

    @property
    def current_actor(self) -> Any:
        """The handle of the actor whose method asks. The actor must have a name."""
        if not _mobula.is_worker() or "name" not in actor:
            raise RuntimeError("This method is only available in an actor that has a name.")
        return found_by_name(actor["name"], actor["namespace"])

    def get_actor_id(self) -> str | None:
        """Return the id of the actor whose method asks, as hexadecimal digits."""
        number = _mobula.actor_number()
        return None if number is None else _ids.of_actor(number).hex()

    @property
    def actor_id(self) -> Any:
        """The id of the actor whose method asks."""
        found = self.get_actor_id()
        return _ids.ActorID.nil() if found is None else _ids.ActorID.from_hex(found)

    @property
    def job_id(self) -> Any:
        """The id of the driver."""
        return _ids.JobID.from_hex(self.get_job_id())

    @property
    def node_id(self) -> Any:
        """The id of this machine."""
        return _ids.of_machine()

    @property
    def task_id(self) -> Any:
        """The id of the running call."""
        found = self.get_task_id()
        return _ids.TaskID.nil() if found is None else _ids.TaskID.from_hex(found)

    def get_actor_name(self) -> str | None:
        """Return the name of the actor whose method asks, if it has one."""
        return actor.get("name")

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The environment that the program gave this process."""
        return _environments.of_this_process()

    def get(self) -> dict[str, Any]:
        """Return the ids and the namespace as a dictionary."""
        found = {"job_id": self.job_id, "node_id": self.node_id, "namespace": self.namespace}
        if _mobula.is_worker():
            found["task_id"] = self.task_id
        return found if self.get_actor_id() is None else {**found, "actor_id": self.actor_id}

    def get_job_id(self) -> str:
        """Return the id of the driver, as far as this process knows it, as hexadecimal digits."""
        return _ids.of_this_driver().hex()


# A call in the extension module: its id, the number of its retries, its function, and the caller's text about it.
RunningCall = tuple[str, int, str, str | None]

# The call that a thread or a task of an event loop runs, where several run at a time.
_running: ContextVar[RunningCall | None] = ContextVar("mobula_running_call", default=None)


def running_call() -> RunningCall | None:
    """Return the running call of this thread or task; ``None`` outside a call."""
    return _running.get() or _mobula.running_call()


def set_running_call(running: RunningCall | None) -> None:
    """Set the running call of this thread, or of this task of an event loop."""
    _running.set(running)


def _told(running: RunningCall) -> dict[str, Any]:
    """Return the caller's data about a call: its name, and its resources."""
    found: dict[str, Any] = json.loads(running[3]) if running[3] else {}
    return found


def get_runtime_context() -> RuntimeContext:
    """Return the context of this process.

    ::

        import mobula as ray

        @ray.remote
        def ids():
            context = ray.get_runtime_context()
            return context.get_task_id(), context.get_job_id()

        ref = ids.remote()
        assert ray.get(ref) == (ref.task_id().hex(), ray.get_runtime_context().get_job_id())
    """
    of_ray = _session.cluster()
    if of_ray is not None:
        found: RuntimeContext = of_ray.ray.get_runtime_context()
        return found
    return RuntimeContext()
