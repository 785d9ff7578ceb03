"""The rows of ``mobula.util.state``, with Ray's fields."""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mobula import _ids

__all__ = [
    "ActorState",
    "JobState",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "RuntimeEnvState",
    "StateSchema",
    "TaskState",
    "WorkerState",
]


def _node_id() -> str:
    return _ids.of_machine().hex()


@dataclass
class StateSchema:
    """A row. Its fields are attributes and keys."""

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field, or something else if there is none."""
        return self[key] if key in self else default

    def keys(self) -> KeysView[str]:
        """Return the names of the fields."""
        return {field.name: None for field in fields(self)}.keys()

    def asdict(self) -> dict[str, Any]:
        """Return all fields by their names."""
        return asdict(self)


@dataclass
class TaskState(StateSchema):
    """A call of a function or a method."""

    task_id: str
    attempt_number: int
    name: str
    state: str
    job_id: str
    actor_id: str | None
    type: str
    func_or_class_name: str
    parent_task_id: str | None
    worker_id: str | None
    worker_pid: int | None
    error_type: str | None
    creation_time_ms: int | None
    start_time_ms: int | None
    end_time_ms: int | None
    #: The argument that the call waits for, if it waits for one. Ray has no such field.
    waits_for: str | None = None
    node_id: str | None = field(default_factory=_node_id)
    language: str | None = None
    required_resources: Any = None
    runtime_env_info: Any = None
    placement_group_id: str | None = None
    events: Any = None
    profiling_data: Any = None
    task_log_info: Any = None
    error_message: str | None = None
    is_debugger_paused: bool | None = None
    call_site: str | None = None
    label_selector: Any = None


@dataclass
class ActorState(StateSchema):
    """An actor."""

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str
    pid: int | None
    ray_namespace: str
    is_detached: bool
    num_restarts: int
    required_resources: Any
    death_cause: str | None
    node_id: str | None = field(default_factory=_node_id)
    serialized_runtime_env: str | None = None
    placement_group_id: str | None = None
    repr_name: str = ""
    num_restarts_due_to_lineage_reconstruction: int = 0
    num_restarts_due_to_node_preemption: int = 0
    call_site: str | None = None
    label_selector: Any = None


@dataclass
class ObjectState(StateSchema):
    """An object, with one of its holders."""

    object_id: str
    object_size: int
    task_status: str
    reference_type: str
    call_site: str
    type: str
    pid: int
    ip: str
    #: ``sealed``, ``promised`` or ``spilled``. Ray has no such field.
    state: str = "sealed"
    #: The holder there: an object, an actor or a call. Ray has no such field.
    held_by: str | None = None
    attempt_number: int = 0


@dataclass
class WorkerState(StateSchema):
    """A process."""

    worker_id: str
    is_alive: bool
    worker_type: str
    pid: int
    ip: str
    #: Its state, such as ``idle``, ``leased`` or ``actor``. Ray has no such field.
    state: str = ""
    #: The function that runs. Ray has no such field.
    running: str | None = None
    exit_type: str | None = None
    exit_detail: str | None = None
    node_id: str | None = field(default_factory=_node_id)
    worker_launch_time_ms: int | None = None
    worker_launched_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    debugger_port: int | None = None
    num_paused_threads: int | None = None


@dataclass
class NodeState(StateSchema):
    """A machine."""

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    resources_total: dict[str, float]
    state_message: str | None = None
    node_name: str = "127.0.0.1"
    labels: Any = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None


@dataclass
class JobState(StateSchema):
    """A program that uses the session."""

    job_id: str
    type: str
    status: str
    entrypoint: str
    start_time: int | None
    end_time: int | None = None
    submission_id: str | None = None
    message: str | None = None
    error_type: str | None = None
    driver_info: Any = None
    metadata: Any = None
    runtime_env: Any = None


@dataclass
class PlacementGroupState(StateSchema):
    """A placement group. The lists have no such rows: a group belongs to the program that makes it."""

    placement_group_id: str
    name: str
    state: str
    stats: Any = None
    bundles: Any = None
    is_detached: bool | None = None


@dataclass
class RuntimeEnvState(StateSchema):
    """A runtime environment. The lists have no such rows: workers are started with it, and it is not kept."""

    runtime_env: Any
    success: bool
    creation_time_ms: float | None = None
    node_id: str | None = field(default_factory=_node_id)
    ref_cnt: int | None = None
    error: str | None = None
