"""The options of calls and of actors, with Ray's names."""

from __future__ import annotations

import inspect
import json
from typing import Any, overload

from mobula import _mobula, _session
from mobula._session import warn_without_effect

_COMMON = frozenset(
    {
        "accelerator_type",
        "label_selector",
        "memory",
        "name",
        "num_cpus",
        "num_gpus",
        "resources",
        "runtime_env",
        "scheduling_strategy",
        "_labels",
        "_metadata",
        "enable_task_events",
    }
)
_TASK = _COMMON | {
    "max_calls",
    "max_retries",
    "num_returns",
    "retry_exceptions",
    "_generator_backpressure_num_objects",
}
_ACTOR = _COMMON | {
    "concurrency_groups",
    "get_if_exists",
    "lifetime",
    "max_concurrency",
    "max_pending_calls",
    "max_restarts",
    "max_task_retries",
    "namespace",
}
# They would change what a program does, and are not there: better an error than another program.
_ABSENT = {
    "accelerator_type": "accelerators are not counted",
    "max_pending_calls": "the queue of an actor has no limit",
}


def check(options: dict[str, Any], *, is_actor: bool) -> None:
    """Refuse options that there are not, and values that cannot be."""
    known, what = (_ACTOR, "actors") if is_actor else (_TASK, "tasks")
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"Invalid option keyword {name} for {what}. Valid ones are {', '.join(sorted(known))}.")
        if name == "lifetime" and value not in (None, "detached", "non_detached"):
            raise ValueError(f"lifetime cannot be {value!r}: 'detached', 'non_detached', or None")
        if name == "namespace" and value is not None and not (isinstance(value, str) and value):
            error = ValueError if isinstance(value, str) else TypeError
            raise error(f"a namespace cannot be {value!r}: text, at least one character")
        if name == "retry_exceptions":
            _check_retry_exceptions(value)
        if name in _ABSENT and value not in (None, 0, -1):
            raise NotImplementedError(f"mobula has no option {name}={value!r}: {_ABSENT[name]}")
        if name in ("num_cpus", "num_gpus", "memory") and value is not None and value < 0:
            raise ValueError(f"The precision of the fractional quantity of resource {name} cannot be negative: {value}")
        if name == "max_calls" and value is not None and not (isinstance(value, int) and value >= 0):
            raise ValueError(f"max_calls cannot be {value!r}: a number of calls; 0 is no limit")
        if name == "max_concurrency" and value is not None and value <= 0:
            raise ValueError(f"max_concurrency cannot be {value}: a number of calls, at least 1")
    check_num_returns(options.get("num_returns"))


def _check_retry_exceptions(value: Any) -> None:
    text = f"retry_exceptions must be either a boolean or a list of exceptions, got {value!r}"
    if not isinstance(value, bool | list | tuple | None):
        raise TypeError(text)
    classes = value if isinstance(value, list | tuple) else ()
    if not all(isinstance(cls, type) and issubclass(cls, Exception) for cls in classes):
        raise ValueError(text)


def check_num_returns(num_returns: Any) -> None:
    """Refuse a number of results that cannot be."""
    is_number = isinstance(num_returns, int) and num_returns >= 0
    if not (num_returns is None or num_returns in ("streaming", "dynamic") or is_number):
        raise ValueError(f"num_returns cannot be {num_returns!r}: a number, at least 0, 'streaming', or 'dynamic'")


def num_returns_of(function: Any, num_returns: Any) -> int:
    """The number of results, where -1 is a stream: of a generator, unless something else is said."""
    if num_returns is None:
        is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        return -1 if is_generator else 1
    return -1 if num_returns in ("streaming", "dynamic") else int(num_returns)


def _environment(options: dict[str, Any]) -> dict[str, Any]:
    environment = options.get("runtime_env") or {}
    unknown = environment.keys() - {"env_vars", "working_dir"}
    if unknown:
        raise ValueError(f"runtime_env has no {', '.join(sorted(unknown))} here: it may have env_vars and working_dir")
    return {"env_vars": environment.get("env_vars"), "working_dir": environment.get("working_dir")}


def _resources(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("scheduling_strategy") not in (None, "DEFAULT", "SPREAD"):
        warn_without_effect("scheduling_strategy", "there is one machine")
    found = {name: options.get(name) for name in ("num_cpus", "num_gpus", "memory", "resources")}
    if found["memory"] is not None:
        found["memory"] = int(found["memory"])
    return found


@overload
def name_in(name: str, namespace: str | None) -> str: ...
@overload
def name_in(name: str | None, namespace: str | None) -> str | None: ...
def name_in(name: str | None, namespace: str | None) -> str | None:
    """Return an actor's name with its namespace, unless that is the session's."""
    if name is None or namespace is None or namespace == _session.namespace:
        return name
    return f"{namespace}::{name}"


def of_task(options: dict[str, Any]) -> _mobula.TaskOptions:
    """Options of calls, as the core takes them."""
    retries = options.get("max_retries")
    return _mobula.TaskOptions(
        **_resources(options),
        **_environment(options),
        max_calls=options.get("max_calls") or 0,
        max_retries=3 if retries is None else retries,
        retry_exceptions=bool(options.get("retry_exceptions")),
        retry_delay=None,
    )


def of_actor(options: dict[str, Any]) -> _mobula.ActorOptions:
    """Options of an actor, as the core takes them."""
    return _mobula.ActorOptions(
        **_resources(options),
        **_environment(options),
        name=name_in(options.get("name"), options.get("namespace")),
        max_restarts=options.get("max_restarts"),
        max_task_retries=options.get("max_task_retries"),
    )


def concurrency(cls: type, options: dict[str, Any], groups: dict[str, str]) -> str:
    """Say how the calls of an actor run, for its process; empty: one at a time."""
    is_async = any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        for _, function in inspect.getmembers(cls, inspect.isfunction)
    )
    limit = options.get("max_concurrency") or (1000 if is_async else 1)
    declared = options.get("concurrency_groups") or {}
    if not is_async and limit == 1 and not declared:
        return ""
    return json.dumps({"async": is_async, "max": limit, "groups": declared, "methods": groups})
