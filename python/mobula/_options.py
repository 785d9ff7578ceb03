"""The options of calls and of actors, with Ray's names."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from mobula import _environments as environments
from mobula import _mobula

_COMMON = frozenset(
    {
        "accelerator_type",
        "fallback_strategy",
        "label_selector",
        "memory",
        "name",
        "num_cpus",
        "num_gpus",
        "object_store_memory",
        "placement_group",
        "placement_group_bundle_index",
        "placement_group_capture_child_tasks",
        "resources",
        "runtime_env",
        "scheduling_strategy",
        "_labels",
        "_metadata",
        "enable_task_events",
    }
)
# The limits of the time of a call, which Ray does not have.
LIMITS = ("timeout", "deadline")
_TASK = _COMMON | {
    "max_calls",
    "max_retries",
    "num_returns",
    "retry_exceptions",
    *LIMITS,
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
}
_ACTOR = _COMMON | {
    "_actor_generator_backpressure_num_objects",
    "allow_out_of_order_execution",
    "concurrency_groups",
    "enable_tensor_transport",
    "get_if_exists",
    "lifetime",
    "max_concurrency",
    "max_pending_calls",
    "max_restarts",
    "max_task_retries",
    "namespace",
}
# Options that would change the behaviour of a program, but are not implemented: they are errors. With the values that
# mean nothing.
ABSENT: dict[str, tuple[tuple[Any, ...], str]] = {
    "accelerator_type": ((None,), "accelerators are not counted. Name a resource"),
    "enable_tensor_transport": ((None, False), "all values lie in the store"),
    "tensor_transport": ((None, "object_store", "OBJECT_STORE"), "all values lie in the store"),
    "_num_objects_per_yield": ((None, 1), "each item of a generator is one object"),
}
# The least value of each number; -1 is no limit.
_LEAST = {
    "max_calls": 0,
    "max_concurrency": 1,
    "max_pending_calls": -1,
    "max_restarts": -1,
    "max_retries": -1,
    "max_task_retries": -1,
    "object_store_memory": 0,
}
# Resources that are devices: a call has a part of one, or some whole ones.
_WHOLE = frozenset({"GPU", "HPU", "NPU", "TPU", "neuron_cores"})
_TEXTS = ("lifetime", "name", "namespace")
_AMOUNTS = ("memory", "num_cpus", "num_gpus")


def check(options: dict[str, Any], *, is_actor: bool) -> None:
    """Check options, and raise for unknown names and invalid values."""
    known, what = (_ACTOR, "actors") if is_actor else (_TASK, "remote functions")
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"Invalid option keyword {name} for {what}. Valid ones are {', '.join(sorted(known))}.")
        if value is not None:
            _check_kind(name, value)
        if name == "lifetime" and value not in (None, "detached", "non_detached"):
            raise ValueError(f"lifetime cannot be {value!r}: 'detached', 'non_detached', or None")
        if name == "namespace" and value == "":
            raise ValueError("a namespace cannot be empty: text, at least one character")
        if name == "retry_exceptions":
            check_retry_exceptions(value)
        if name.endswith("_generator_backpressure_num_objects"):
            check_in_flight(name, value)
        if name in LIMITS:
            seconds_of(name, value)
        if name in ABSENT:
            check_absent(name, value)
        if name == "runtime_env" and value is not None:
            environments.check(value)
    if not is_actor and options.get("object_store_memory") is not None:
        raise ValueError("Setting 'object_store_memory' is not implemented for tasks")
    _check_fallback(options.get("fallback_strategy"))
    _strategy(options)
    check_num_returns(options.get("num_returns"))


def check_absent(name: str, value: Any) -> None:
    """Raise for an option that is not implemented, unless its value means nothing."""
    without_meaning, why = ABSENT[name]
    if value not in without_meaning:
        raise NotImplementedError(f"mobula has no option {name}={value!r}: {why}")


def check_in_flight(name: str, value: Any) -> None:
    """Check a limit of the items of a stream that are in flight."""
    if value is not None and (not isinstance(value, int) or (value < 1 and value != -1)):
        raise ValueError(f"{name}={value!r} is not allowed: a number of at least 1, or -1 for no limit")


def seconds_of(name: str, limit: Any) -> float | None:
    """Return a limit of time in seconds."""
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} cannot be {limit!r}: a number of seconds, a datetime.timedelta, or None")
    if not seconds > 0:
        raise ValueError(f"{name} cannot be {limit!r}: more than 0 seconds")
    return float(seconds)


def in_flight_max(value: int | None, default: int) -> int:
    """Return the most items of a stream that are in flight, where an option says ``value``."""
    return default if value is None else value if value > 0 else _NO_LIMIT


def _check_fallback(strategies: Any) -> None:
    """Check a list of other labels to select a machine by. There is one machine, so it has no effect."""
    if strategies is None:
        return
    if not isinstance(strategies, list):
        raise _of_type("fallback_strategy", strategies, list)
    for strategy in strategies:
        if not isinstance(strategy, dict) or strategy.keys() != {"label_selector"}:
            raise ValueError(
                f"fallback_strategy cannot have {strategy!r}: dictionaries with the one key 'label_selector'"
            )


def _strategy(options: dict[str, Any]) -> Any:
    """Return the strategy of a call or an actor, also where the old options of placement groups name it."""
    strategy, group = options.get("scheduling_strategy"), options.get("placement_group", "default")
    index, captures = options.get("placement_group_bundle_index"), options.get("placement_group_capture_child_tasks")
    if group == "default":
        if index not in (None, -1):
            raise ValueError(
                f"placement group bundle index {index} is invalid: without a placement group it must be -1"
            )
        return strategy
    if strategy is not None:
        raise ValueError(
            "Placement groups should be specified via the scheduling_strategy option. The placement_group option is "
            "deprecated, and there may be one of both."
        )
    if group is None:
        # Outside of all groups, also where a group captures calls.
        return "DEFAULT"
    # Its class is in a module that uses this one.
    if not hasattr(group, "bundle_specs"):
        raise TypeError(f"placement_group cannot be {group!r}: a placement group, None, or 'default'")
    index, count = -1 if index is None else index, len(group.bundle_specs)
    if not -1 <= index < max(count, 1):
        raise ValueError(
            f"placement group bundle index {index} is invalid. Valid placement group indexes: 0-{count - 1}"
        )
    return SimpleNamespace(
        placement_group=group, placement_group_bundle_index=index, placement_group_capture_child_tasks=bool(captures)
    )


def _check_kind(name: str, value: Any) -> None:
    """Raise for a value of a wrong class, and for a number that is too small."""
    if name in _TEXTS and not isinstance(value, str):
        raise _of_type(name, value, str)
    if name in _LEAST:
        if not isinstance(value, int):
            raise _of_type(name, value, int)
        if value < _LEAST[name]:
            least = "0, -1 or a positive integer, where -1 represents infinity."
            wanted = {-1: least, 0: "0 or a positive integer", 1: "a positive integer"}[_LEAST[name]]
            raise ValueError(f"The keyword '{name}' only accepts None, {wanted}")
    if name in _AMOUNTS:
        _check_amount(name, value)
    if name in ("resources", "_metadata") and not isinstance(value, dict):
        raise _of_type(name, value, dict)
    if name == "resources":
        _check_resources(value)


def _check_resources(amounts: Any) -> None:
    if amounts.keys() & {"CPU", "GPU", "memory"}:
        raise ValueError("CPU, GPU and memory are no names in resources: use num_cpus, num_gpus and memory")
    for resource, amount in amounts.items():
        _check_amount(resource, amount)


def _of_type(name: str, value: Any, *types: type) -> TypeError:
    """Return the error for a value of a wrong class. It has Ray's words, because programs look for them."""
    return TypeError(f"The type of keyword '{name}' must be {(*types, type(None))}, but received type {type(value)}")


def _check_amount(name: str, amount: Any) -> None:
    if not isinstance(amount, int | float):
        raise _of_type(name, amount, int, float)
    if amount < 0:
        raise ValueError(f"The quantity of resource {name} cannot be negative: {amount}")
    if 0 < amount < 0.0001:
        raise ValueError(f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001")


def check_retry_exceptions(value: Any) -> None:
    """Check a value that names the errors to retry."""
    text = f"retry_exceptions must be either a boolean or a list of exceptions, got {value!r}"
    if not isinstance(value, bool | list | tuple | None):
        raise TypeError(text)
    classes = value if isinstance(value, list | tuple) else ()
    if not all(isinstance(cls, type) and issubclass(cls, Exception) for cls in classes):
        raise ValueError(text)


def check_num_returns(num_returns: Any) -> None:
    """Check a number of results."""
    if num_returns is None or num_returns in ("streaming", "dynamic"):
        return
    if not isinstance(num_returns, int):
        raise _of_type("num_returns", num_returns, int, str)
    if num_returns < 0:
        raise ValueError(
            "The keyword 'num_returns' only accepts None, a non-negative integer, 'streaming' (for generators), or "
            "'dynamic'"
        )


# Numbers of results that are a stream, and a stream that can be passed on.
STREAMING, DYNAMIC = -1, -2

# A number of items that no stream has in flight.
_NO_LIMIT = 2**31


def num_returns_of(function: Any, num_returns: Any) -> int:
    """Return the number of results; `STREAMING` is the default for generators."""
    if num_returns is None:
        is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        return STREAMING if is_generator else 1
    return {"streaming": STREAMING, "dynamic": DYNAMIC}.get(num_returns) or int(num_returns)


def _resources(options: dict[str, Any]) -> dict[str, Any]:
    strategy: Any = _strategy(options)
    if isinstance(strategy, str) and strategy not in ("DEFAULT", "SPREAD"):
        raise ValueError(f"scheduling_strategy cannot be {strategy!r}: 'DEFAULT', 'SPREAD', or an object")
    found = {name: options.get(name) for name in ("num_cpus", "num_gpus", "memory", "resources")}
    group = getattr(strategy, "placement_group", None)
    captured = environments.capturing_group() if strategy is None else None
    if group is not None and not group.is_empty:
        bundle = getattr(strategy, "placement_group_bundle_index", -1)
        found["placement"] = (group._number, group.bundle_specs, bundle)
    elif captured is not None:
        found["placement"] = (*captured, -1)
    if found["memory"] is not None:
        found["memory"] = int(found["memory"])
    for name, amount in {"GPU": found["num_gpus"], **(found["resources"] or {})}.items():
        if name in _WHOLE and amount is not None and amount > 1 and amount != int(amount):
            raise ValueError(f"{name} resource quantities >1 must be whole numbers. The specified quantity {amount}.")
    return found


def _environment(options: dict[str, Any]) -> dict[str, Any]:
    strategy: Any = _strategy(options)
    captures = getattr(strategy, "placement_group_capture_child_tasks", False)
    group = getattr(strategy, "placement_group", None) if captures else None
    capturing = None if group is None or group.is_empty else (group._number, group.bundle_specs)
    return environments.of(options.get("runtime_env"), capturing, has_strategy=strategy is not None)


def of_task(options: dict[str, Any]) -> _mobula.TaskOptions:
    """Return options of calls in the form of the core."""
    retries = options.get("max_retries")
    resources = _resources(options)
    told = {"name": options.get("name"), "resources": _told(resources)}
    return _mobula.TaskOptions(
        **resources,
        # A call can ask for this text. It is left out for the defaults.
        told=json.dumps(told) if any(told.values()) else None,
        **_environment(options),
        max_calls=options.get("max_calls") or 0,
        max_retries=3 if retries is None else retries,
        retry_exceptions=bool(options.get("retry_exceptions")),
        # The first time; it doubles with each further one.
        retry_delay=0.01 if options.get("retry_exceptions") else None,
        timeout=seconds_of("timeout", options.get("timeout")),
        deadline=seconds_of("deadline", options.get("deadline")),
    )


def _told(resources: dict[str, Any]) -> dict[str, float]:
    """Return the resources that a call or an actor demands, by Ray's names."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    found = {names[name]: resources[name] for name in names if resources[name] is not None}
    found.update(resources["resources"] or {})
    return {name: float(amount) for name, amount in found.items()}


def of_actor(options: dict[str, Any], description: str | None = None) -> _mobula.ActorOptions:
    """Return options of an actor in the form of the core, with the description of its methods."""
    pending = options.get("max_pending_calls") or 0
    return _mobula.ActorOptions(
        **_resources(options),
        **_environment(options),
        name=options.get("name"),
        namespace=options.get("namespace"),
        get_if_exists=options.get("get_if_exists"),
        detached=options.get("lifetime") == "detached",
        max_pending_calls=pending if pending > 0 else None,
        max_restarts=options.get("max_restarts"),
        max_task_retries=options.get("max_task_retries"),
        description=description,
    )


def about(cls: type, options: dict[str, Any], groups: dict[str, str]) -> str:
    """Describe to an actor's process how its calls run, and its name.

    The text is empty if they run one at a time, and the actor has no name.
    """
    is_async = any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        for _, function in inspect.getmembers(cls, inspect.isfunction)
    )
    limit = options.get("max_concurrency") or (1000 if is_async else 1)
    declared = options.get("concurrency_groups") or {}
    found: dict[str, Any] = {}
    if is_async or limit != 1 or declared:
        found.update({"async": is_async, "max": limit, "groups": declared, "methods": groups})
    if options.get("name") is not None:
        # So that it can make handles to itself.
        found.update({"name": options["name"], "namespace": options.get("namespace")})
    resources = {name: amount for name, amount in _told(_resources(options)).items() if amount}
    if resources:
        found["resources"] = resources
    return json.dumps(found) if found else ""
