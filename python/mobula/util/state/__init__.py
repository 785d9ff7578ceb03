"""The state of the session, with the names of Ray's ``ray.util.state``.

Each function takes a snapshot, in some milliseconds, without work for other processes. Rows have Ray's field names as
attributes and as keys. Fields that have no meaning here are ``None``. The command ``mobula`` shows the same::

    import mobula as ray
    from mobula.util.state import list_actors, list_tasks

    ray.init()
    waiting = list_tasks(filters=[("state", "=", "PENDING_ARGS_AVAIL")])
    print(len(waiting), [actor.name for actor in list_actors()])

The processes of a program record the running and the failed calls. If it was started with ``MOBULA_EVENTS=all``, they
record each call; with ``MOBULA_EVENTS=none``, none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mobula import _ids, _mobula
from mobula._ids import BaseID
from mobula._mobula import ObjectRef
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


class _Ids:
    """The ids of a snapshot's processes, as the rest of the package shows them."""

    def __init__(self) -> None:
        self.drivers = [driver["pid"] for driver in _look("drivers")]
        self._workers = {worker["pid"]: _worker_id(worker) for worker in _look("workers")}

    def worker(self, pid: int | None) -> str | None:
        """Return the id of a process."""
        return None if pid is None else self._workers.get(pid)

    def job(self, pid: int) -> str:
        """Return the id of the driver that a process belongs to."""
        if pid in self.drivers:
            return _ids.of_driver(pid).hex()
        return _ids.of_driver(self.drivers[0]).hex() if len(self.drivers) == 1 else _ids.of_this_driver().hex()


def _worker_id(worker: Any) -> str | None:
    return _ids.of_process(worker["id"]).hex() if worker["id"] else None


def _actor_id(number: int | None) -> str | None:
    return None if number is None else _ids.of_actor(f"{number:016x}").hex()


def _object_id(shown: str) -> str:
    """Return the digits that ``ObjectRef.hex`` has for an object of the store."""
    slot, entry, generation, epoch = shown.split("-")
    return slot + epoch + entry + generation


def _tasks() -> list[TaskState]:
    # The ids come last: a process may have connected meanwhile, and those that have died are kept.
    tasks = _look("tasks")
    ids = _Ids()
    # The caller of a call knows whether it is one of an actor. If its event is gone, the process that ran it tells.
    actors = {actor["pid"]: actor["actor"] for actor in _look("actors") if actor["pid"]}
    return [_task(task, task["actor"] or actors.get(task["worker_pid"]), ids) for task in tasks]


def _task(task: Any, actor: int | None, ids: _Ids) -> TaskState:
    name = task["function"] if actor is None else _method(task["function"])
    job, is_of_driver = ids.job(task["caller_pid"]), task["caller_pid"] in ids.drivers
    return TaskState(
        task_id=_ids.of_task(task["id"]).hex(),
        attempt_number=0,
        name=name,
        state=_TASK_STATES.get(task["state"]) or task["state"].upper(),
        actor_id=_actor_id(actor),
        type="NORMAL_TASK" if actor is None else "ACTOR_TASK",
        func_or_class_name=name,
        # The id that `get_runtime_context` has in a driver. Calls of calls do not record it.
        parent_task_id=job.rjust(2 * _ids.TaskID.SIZE, "f") if is_of_driver else None,
        job_id=job,
        worker_id=ids.worker(task["worker_pid"]),
        worker_pid=task["worker_pid"],
        error_type=_ERRORS.get(task["cause"], "TASK_EXECUTION_EXCEPTION") if task["cause"] else None,
        creation_time_ms=_milliseconds(task["created"]),
        start_time_ms=_milliseconds(task["started"]),
        end_time_ms=_milliseconds(task["ended"]),
        waits_for=task["waits_for"],
    )


def _method(shown: str) -> str:
    """Return the name of a method, with its class, as Ray writes it."""
    return ".".join(shown.rsplit("::", 1))


def _actors() -> list[ActorState]:
    ids = _Ids()
    return [
        ActorState(
            actor_id=str(_actor_id(actor["actor"])),
            class_name=actor["class"],
            state=_ACTOR_STATES.get(actor["state"]) or actor["state"].upper(),
            job_id=ids.job(actor["creator_pid"]),
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
                    object_id=_object_id(held["object"]),
                    object_size=held["bytes"],
                    task_status="PENDING" if held["state"] == "promised" else "FINISHED",
                    reference_type=kind,
                    call_site=held["made_at"] or "disabled",
                    type="DRIVER" if hold["kind"] == "handle" else "WORKER",
                    pid=hold["pid"],
                    ip="127.0.0.1",
                    state=held["state"],
                    held_by=hold["by"],
                )
            )
    return found


def _workers() -> list[WorkerState]:
    return [
        WorkerState(
            worker_id=_worker_id(worker) or "",
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
    node = _ids.of_machine().hex()
    return [NodeState(node_id=node, node_ip="127.0.0.1", is_head_node=True, state="ALIVE", resources_total=total)]


def _jobs() -> list[JobState]:
    return [
        JobState(
            job_id=_ids.of_driver(driver["pid"]).hex(),
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


def _digits(id: Any) -> str:
    return str(id.hex()) if isinstance(id, BaseID) else str(id)


def _getter(rows: Callable[[], list[Any]], key: str, name: str) -> Callable[..., Any]:
    def found(
        id: str | BaseID | None = None,
        address: str | None = None,
        timeout: float | None = None,
        _explain: bool = False,
    ) -> Any:
        return next((row for row in rows() if row[key] == _digits(id)), None)

    found.__name__ = found.__qualname__ = name
    found.__doc__ = f"""Return the row with this ``{key}``: digits, or an id. ``None`` if there is none.

    The other arguments are ignored.
    """
    return found


get_task = _getter(_tasks, "task_id", "get_task")
get_actor = _getter(_actors, "actor_id", "get_actor")
get_worker = _getter(_workers, "worker_id", "get_worker")
get_node = _getter(_nodes, "node_id", "get_node")
get_job = _getter(_jobs, "job_id", "get_job")
get_placement_group = _getter(list, "placement_group_id", "get_placement_group")


def get_objects(
    id: str | ObjectRef[Any], address: str | None = None, timeout: float | None = None, _explain: bool = False
) -> list[ObjectState]:
    """Return the rows of an object: one for each process that holds it. The other arguments are ignored.

    Args:
        id: The digits of an object that was put, as ``ObjectRef.hex`` has them. The result of a call becomes an object
            with an id of its own: pass the reference itself.
    """
    digits = (id._object_id() or id.hex()) if isinstance(id, ObjectRef) else str(id)
    return [row for row in _objects() if row["object_id"] == digits]


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
    # The methods of actors, as their calls and the names of the classes tell.
    methods = {task["function"] for task in _look("tasks") if task["actor"] is not None}
    classes = {actor["class"] for actor in _look("actors")}
    for function in _look("summary"):
        counts = {
            "PENDING_NODE_ASSIGNMENT": function["pending"] or 0,
            "RUNNING": function["running"],
            "FINISHED": function["finished"],
            "FAILED": function["failed"],
        }
        shown = function["function"]
        is_method = shown in methods or ("::" in shown and shown.rpartition("::")[0] in classes)
        name = _method(shown) if is_method else shown
        groups[name] = {
            "func_or_class_name": name,
            "type": "ACTOR_TASK" if is_method else "NORMAL_TASK",
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
    """Return the number and the bytes of the objects that were made at each place of the program, and of each holder.

    The places are known if the program was started with ``MOBULA_CALL_SITES=1``. The arguments are ignored.
    """
    report = _look("memory")
    sites: dict[str, Any] = {}
    for row in _objects():
        site = sites.setdefault(row.call_site, {"sizes": {}, "pids": set(), "states": {}, "kinds": {}})
        site["sizes"][row.object_id] = row.object_size
        site["pids"].add(row.pid)
        for counts, key in ((site["states"], row.task_status), (site["kinds"], row.reference_type)):
            counts[key] = counts.get(key, 0) + 1
    groups = {
        name: {
            "total_objects": len(site["sizes"]),
            "total_size_mb": sum(site["sizes"].values()) / (1 << 20),
            "total_num_workers": len(site["pids"]),
            "total_num_nodes": 1,
            "task_state_counts": site["states"],
            "ref_type_counts": site["kinds"],
        }
        for name, site in sites.items()
    }
    holders = {
        f"{group['kind']} {group['pid']} {group['holder']}".strip(): {
            "total_objects": group["objects"],
            "total_size_mb": group["bytes"] / (1 << 20),
            "alone_size_mb": group["alone_bytes"] / (1 << 20),
            "pid": group["pid"],
            "kind": group["kind"],
        }
        for group in report["groups"]
    }
    return _summary(
        groups,
        total_objects=report["objects"],
        total_size_mb=report["bytes"] / (1 << 20),
        callsite_enabled=os.environ.get("MOBULA_CALL_SITES") == "1" or any(name != "disabled" for name in groups),
        summary_by="callsite",
        # More than Ray has: who holds the objects.
        holders=holders,
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
