"""The state of the session, with the names of Ray's ``ray.util.state``.

Each function takes a snapshot, in some milliseconds, without work for other processes. Rows have Ray's field names as
attributes and as keys. Fields that have no meaning here are ``None``. The command ``mobula`` shows the same::

    from mobula.util.state import list_tasks, summarize_tasks

    waiting = list_tasks(filters=[("state", "=", "PENDING_ARGS_AVAIL")])

The processes of a program record the running and the failed calls. If it was started with ``MOBULA_EVENTS=all``, they
record each call; with ``MOBULA_EVENTS=none``, none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mobula import _mobula
from mobula.util.state.common import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateSchema,
    TaskState,
    WorkerState,
)
from mobula.util.state.exception import RayStateApiException

__all__ = [
    "ActorState",
    "JobState",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "RayStateApiException",
    "RuntimeEnvState",
    "TaskState",
    "WorkerState",
    "get_actor",
    "get_job",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_jobs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_runtime_envs",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
    "timeline",
]

#: The states of calls here, and their names in Ray.
_TASK_STATES = {
    "pending_arguments": "PENDING_ARGS_AVAIL",
    "pending": "PENDING_NODE_ASSIGNMENT",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
}
_ACTOR_STATES = {
    "reserved": "DEPENDENCIES_UNREADY",
    "waiting": "PENDING_CREATION",
    "constructing": "PENDING_CREATION",
    "alive": "ALIVE",
    "dead": "DEAD",
}
_ERRORS = {
    "function": "TASK_EXECUTION_EXCEPTION",
    "process_died": "WORKER_DIED",
    "cancelled": "TASK_CANCELLED",
    "out_of_memory": "OUT_OF_MEMORY",
    "timed_out": "TASK_TIMED_OUT",
}

Filter = tuple[str, str, Any]


def _look(what: str) -> Any:
    return json.loads(_mobula.state(what))


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _passes(row: StateSchema, filters: Iterable[Filter]) -> bool:
    for key, predicate, value in filters:
        if key not in row:
            raise ValueError(f"{type(row).__name__} has no field {key!r}; it has {', '.join(sorted(row.keys()))}")
        has, wanted = str(row[key]).lower(), str(value).lower()
        if predicate not in ("=", "!="):
            raise ValueError(f"the predicate of a filter is '=' or '!=', and not {predicate!r}")
        if (has == wanted) != (predicate == "="):
            return False
    return True


def _rows(
    rows: Iterable[StateSchema],
    filters: Sequence[Filter] | None,
    limit: int,
) -> list[Any]:
    if limit < 1:
        raise ValueError(f"`limit` must be at least 1, and is {limit}")
    return [row for row in rows if _passes(row, filters or ())][:limit]


def _tasks() -> list[TaskState]:
    actors = {actor["pid"]: actor["actor"] for actor in _look("actors") if actor["pid"]}
    return [
        TaskState(
            task_id=task["task"],
            attempt_number=0,
            name=task["function"],
            state=_TASK_STATES.get(task["state"]) or task["state"].upper(),
            actor_id=_text(actors.get(task["worker_pid"])),
            type="ACTOR_TASK" if task["worker_pid"] in actors else "NORMAL_TASK",
            func_or_class_name=task["function"],
            parent_task_id=f"{task['caller_pid']}:{task['parent']}" if task["parent"] else None,
            job_id=str(task["caller_pid"]),
            worker_id=_text(task["worker_pid"]),
            worker_pid=task["worker_pid"],
            error_type=_ERRORS.get(task["cause"], "TASK_EXECUTION_EXCEPTION") if task["cause"] else None,
            creation_time_ms=_milliseconds(task["created"]),
            start_time_ms=_milliseconds(task["started"]),
            end_time_ms=_milliseconds(task["ended"]),
            waits_for=task["waits_for"],
        )
        for task in _look("tasks")
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _actors() -> list[ActorState]:
    return [
        ActorState(
            actor_id=str(actor["actor"]),
            class_name=actor["class"],
            state=_ACTOR_STATES.get(actor["state"]) or actor["state"].upper(),
            job_id=str(actor["creator_pid"]),
            name=actor["name"] or "",
            pid=actor["pid"],
            ray_namespace=actor["namespace"] or "default",
            is_detached=actor["is_detached"],
            num_restarts=actor["restarts"],
            required_resources=actor["demand"],
            death_cause=actor["death"],
        )
        for actor in _look("actors")
    ]


def _objects() -> list[ObjectState]:
    kinds = {"bytes_in_use": "PINNED_IN_MEMORY", "object": "CAPTURED_IN_OBJECT", "actor_state": "ACTOR_HANDLE"}
    found = []
    for held in _look("memory")["held"]:
        for hold in held["holds"] or [{"kind": "handle", "pid": held["owner_pid"], "by": None}]:
            pending = hold["kind"] == "pending_argument"
            kind = "USED_BY_PENDING_TASK" if pending else kinds.get(hold["kind"], "LOCAL_REFERENCE")
            found.append(
                ObjectState(
                    object_id=held["object"],
                    object_size=held["bytes"],
                    task_status="PENDING" if held["state"] == "promised" else "FINISHED",
                    reference_type=kind,
                    call_site=hold["by"] or "disabled",
                    type="DRIVER" if hold["kind"] == "handle" else "WORKER",
                    pid=hold["pid"],
                    ip="127.0.0.1",
                    state=held["state"],
                )
            )
    return found


def _workers() -> list[WorkerState]:
    return [
        WorkerState(
            worker_id=str(worker["pid"]),
            is_alive=worker["state"] != "dead",
            worker_type="DRIVER" if worker["kind"] == "driver" else "WORKER",
            pid=worker["pid"],
            ip="127.0.0.1",
            state=worker["state"],
            running=worker["function"],
        )
        for worker in _look("workers")
    ]


def _nodes() -> list[NodeState]:
    overview = _look("overview")
    total = {resource["name"]: resource["total"] for resource in overview["resources"]}
    total["object_store_memory"] = float(overview["store"]["capacity_bytes"])
    return [NodeState(node_id="0", node_ip="127.0.0.1", is_head_node=True, state="ALIVE", resources_total=total)]


def _jobs() -> list[JobState]:
    return [
        JobState(
            job_id=str(driver["pid"]),
            type="DRIVER",
            status="RUNNING",
            entrypoint=driver["command"],
            start_time=_milliseconds(driver["since"]),
        )
        for driver in _look("drivers")
    ]


def _lister(rows: Callable[[], list[Any]], name: str, what: str, row: type[StateSchema]) -> Callable[..., list[Any]]:
    def listed(
        address: str | None = None,
        filters: Sequence[Filter] | None = None,
        limit: int = 100,
        timeout: float | None = None,
        detail: bool = False,
        raise_on_missing_output: bool = True,
        _explain: bool = False,
    ) -> list[Any]:
        return _rows(rows(), filters, limit)

    listed.__name__ = listed.__qualname__ = name
    listed.__doc__ = f"""List {what} of this session.

    Args:
        address: Ignored: the session is that of this process.
        filters: Conditions for rows, each ``(field, "=" or "!=", value)``.
        limit: The most rows.
        timeout: Ignored.
        detail: Ignored: every row has all its fields.
        raise_on_missing_output: Ignored.

    Returns:
        Rows of the type ``{row.__name__}``.
    """
    return listed


list_tasks = _lister(_tasks, "list_tasks", "the calls that were made or run lately", TaskState)
list_actors = _lister(_actors, "list_actors", "the actors", ActorState)
list_objects = _lister(_objects, "list_objects", "who holds which object of the store", ObjectState)
list_workers = _lister(_workers, "list_workers", "the processes", WorkerState)
list_nodes = _lister(_nodes, "list_nodes", "the machines: one", NodeState)
list_jobs = _lister(_jobs, "list_jobs", "the programs", JobState)
list_placement_groups = _lister(list, "list_placement_groups", "the placement groups", PlacementGroupState)
list_runtime_envs = _lister(list, "list_runtime_envs", "the runtime environments", RuntimeEnvState)


def _getter(rows: Callable[[], list[Any]], key: str, name: str) -> Callable[..., Any]:
    def found(
        id: str | int | None = None,
        address: str | None = None,
        timeout: float | None = None,
        _explain: bool = False,
    ) -> Any:
        return next((row for row in rows() if row[key] == str(id)), None)

    found.__name__ = found.__qualname__ = name
    found.__doc__ = (
        f"""Return the row with this ``{key}``; ``None`` if there is none. The other arguments are ignored."""
    )
    return found


get_task = _getter(_tasks, "task_id", "get_task")
get_actor = _getter(_actors, "actor_id", "get_actor")
get_worker = _getter(_workers, "worker_id", "get_worker")
get_node = _getter(_nodes, "node_id", "get_node")
get_job = _getter(_jobs, "job_id", "get_job")
get_placement_group = _getter(list, "placement_group_id", "get_placement_group")


def get_objects(
    id: str, address: str | None = None, timeout: float | None = None, _explain: bool = False
) -> list[ObjectState]:
    """Return the rows of an object: one for each process that holds it. The other arguments are ignored."""
    return [row for row in _objects() if row["object_id"] == str(id)]


def _summary(groups: dict[str, Any], **totals: Any) -> dict[str, Any]:
    return {"cluster": {"summary": groups, **totals}}


def summarize_tasks(
    address: str | None = None,
    timeout: float | None = None,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Return the numbers of calls of each function by state, and their times.

    The counts are exact, even if :func:`list_tasks` does not have each call any more. The arguments are ignored.
    """
    groups: dict[str, Any] = {}
    for function in _look("summary"):
        counts = {
            "PENDING_NODE_ASSIGNMENT": function["pending"],
            "RUNNING": function["running"],
            "FINISHED": function["finished"],
            "FAILED": function["failed"],
        }
        name = function["function"]
        groups[name] = {
            "func_or_class_name": name,
            "type": "ACTOR_TASK" if "." in name or "::" in name else "NORMAL_TASK",
            "state_counts": {state: count for state, count in counts.items() if count},
            "p50_s": function["p50_s"],
            "p99_s": function["p99_s"],
            "total_s": function["total_s"],
        }
    of_actors = sum(sum(group["state_counts"].values()) for group in groups.values() if group["type"] == "ACTOR_TASK")
    total = sum(sum(group["state_counts"].values()) for group in groups.values())
    actors = len(_look("actors"))
    return _summary(
        groups,
        total_tasks=total - of_actors,
        total_actor_tasks=of_actors,
        total_actor_scheduled=actors,
        summary_by="func_name",
    )


def summarize_actors(
    address: str | None = None,
    timeout: float | None = None,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Return the numbers of actors of each class by state. The arguments are ignored."""
    groups: dict[str, Any] = {}
    actors = _actors()
    for actor in actors:
        group = groups.setdefault(actor.class_name, {"class_name": actor.class_name, "state_counts": {}})
        counts = group["state_counts"]
        counts[actor.state] = counts.get(actor.state, 0) + 1
    return _summary(groups, total_actors=len(actors), summary_by="class")


def summarize_objects(
    address: str | None = None,
    timeout: float | None = None,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Return the number of objects of each holder, and their bytes. The arguments are ignored."""
    groups: dict[str, Any] = {}
    report = _look("memory")
    for group in report["groups"]:
        key = f"{group['kind']} {group['pid']} {group['holder']}".strip()
        groups[key] = {
            "total_objects": group["objects"],
            "total_size_mb": group["bytes"] / (1 << 20),
            "alone_size_mb": group["alone_bytes"] / (1 << 20),
            "pid": group["pid"],
            "kind": group["kind"],
        }
    return _summary(
        groups,
        total_objects=report["objects"],
        total_size_mb=report["bytes"] / (1 << 20),
        callsite_enabled=False,
        summary_by="callsite",
    )


def timeline(filename: str | None = None) -> list[Any] | None:
    """Return the recent events of the processes as a trace, or write them to a file.

    Trace viewers read the file: ``chrome://tracing``, and https://ui.perfetto.dev. It has each call if the program was
    started with ``MOBULA_EVENTS=all``.

    Args:
        filename: The file; without it, the events are returned.
    """
    events: list[Any] = _look("timeline")
    if filename is None:
        return events
    with open(filename, "w") as file:
        json.dump(events, file)
    return None
