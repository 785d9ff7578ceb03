"""The arguments, options and exceptions of Ray 2.60: if this fails, a program that gives one of them does not run.

The lists are those of Ray 2.60.0, so that no Ray is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobula as ray
from mobula import _actor, _options, exceptions
from mobula.util.placement_group import placement_group, remove_placement_group
from mobula.util.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

# Each argument, with a value that a program may give.
INIT: dict[str, Any] = {
    "address": None,
    "num_cpus": 1,
    "num_gpus": 0,
    "resources": {"disk": 1},
    "labels": {"zone": "here"},
    "object_store_memory": 80 << 20,
    "local_mode": False,
    "ignore_reinit_error": True,
    "include_dashboard": False,
    "dashboard_host": "127.0.0.1",
    "dashboard_port": 8265,
    "job_config": None,
    "configure_logging": True,
    "logging_level": "info",
    "logging_format": None,
    "logging_config": None,
    "log_to_driver": None,
    "namespace": "space",
    "runtime_env": {},
    "enable_resource_isolation": False,
    "cgroup_path": None,
    "system_reserved_cpu": 0.5,
    "system_reserved_memory": 1 << 20,
    "proxy_server_url": None,
    # From its keyword arguments.
    "_driver_object_store_memory": None,
    "_enable_object_reconstruction": False,
    "_memory": None,
    "_metrics_export_port": None,
    "_node_ip_address": None,
    "_node_name": "node",
    "_object_spilling_directory": None,
    "_plasma_directory": None,
    "_redis_password": "",
    "_redis_username": "",
    "_skip_env_hook": True,
    "_system_config": None,
    "_temp_dir": None,
    "_tracing_startup_hook": None,
}
FUNCTIONS = {
    "shutdown": {"wait_for_processes", "_exiting_interpreter"},
    "put": {"value", "_owner", "_tensor_transport"},
    "get": {"object_refs", "timeout", "_use_object_store"},
    "wait": {"ray_waitables", "num_returns", "timeout", "fetch_local"},
    "cancel": {"ray_waitable", "force", "recursive"},
    "kill": {"actor", "no_restart"},
    "get_actor": {"name", "namespace"},
    "timeline": {"filename"},
    "util.placement_group": {
        "bundles",
        "strategy",
        "name",
        "lifetime",
        "_soft_target_node_id",
        "bundle_label_selector",
        "topology_strategy",
    },
    "util.list_named_actors": {"all_namespaces"},
}
OF_ALL = {
    "_labels",
    "accelerator_type",
    "enable_task_events",
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
}
OF_TASKS = OF_ALL | {
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
    "max_calls",
    "max_retries",
    "num_returns",
    "retry_exceptions",
}
OF_ACTORS = OF_ALL | {
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
OF_METHODS = {
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
    "concurrency_group",
    "enable_task_events",
    "max_task_retries",
    "num_returns",
    "retry_exceptions",
    "tensor_transport",
}
# Each exception, with the names of its bases up to `Exception`.
ERRORS = {
    "RayError": [],
    "ActorPlacementGroupRemoved": ["RayError"],
    "ActorUnschedulableError": ["RayError"],
    "AsyncioActorExit": ["RayError"],
    "AuthenticationError": ["RayError"],
    "CrossLanguageError": ["RayError"],
    "LocalRayletDiedError": ["RayError"],
    "NodeDiedError": ["RayError"],
    "ObjectLostError": ["RayError"],
    "ObjectRefStreamEndOfStreamError": ["RayError"],
    "ObjectStoreFullError": ["RayError"],
    "OufOfBandObjectRefSerializationException": ["RayError"],
    "OutOfDiskError": ["RayError"],
    "OutOfMemoryError": ["RayError"],
    "PendingCallsLimitExceeded": ["RayError"],
    "PlasmaObjectNotAvailable": ["RayError"],
    "RayActorError": ["RayError"],
    "RaySystemError": ["RayError"],
    "RayTaskError": ["RayError"],
    "RpcError": ["RayError"],
    "RuntimeEnvSetupError": ["RayError"],
    "TaskCancelledError": ["RayError"],
    "TaskPlacementGroupRemoved": ["RayError"],
    "TaskUnschedulableError": ["RayError"],
    "UnserializableException": ["RayError"],
    "UserCodeException": ["RayError"],
    "WorkerCrashedError": ["RayError"],
    "ActorAlreadyExistsError": ["ValueError", "RayError"],
    "ActorHandleNotFoundError": ["ValueError", "RayError"],
    "ActorDiedError": ["RayActorError", "RayError"],
    "ActorUnavailableError": ["RayActorError", "RayError"],
    "GetTimeoutError": ["RayError", "TimeoutError", "OSError"],
    "ObjectFetchTimedOutError": ["ObjectLostError", "RayError"],
    "ObjectFreedError": ["ObjectLostError", "RayError"],
    "ObjectReconstructionFailedError": ["ObjectLostError", "RayError"],
    "OwnerDiedError": ["ObjectLostError", "RayError"],
    "RayCgraphCapacityExceeded": ["RaySystemError", "RayError"],
    "RayChannelError": ["RaySystemError", "RayError"],
    "RayChannelTimeoutError": ["RayChannelError", "RaySystemError", "RayError", "TimeoutError", "OSError"],
    "RayDirectTransportError": ["RaySystemError", "RayError"],
    "ReferenceCountingAssertionError": ["ObjectLostError", "RayError", "AssertionError"],
    "StreamingGeneratorReplayInconsistentError": ["RaySystemError", "RayError"],
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_an_exception_has_the_bases_of_ray(name: str) -> None:
    bases = [cls.__name__ for cls in getattr(exceptions, name).__mro__[1:]]
    assert bases == [*ERRORS[name], "Exception", "BaseException", "object"]


def test_init_takes_the_arguments_of_ray(fresh: None, tmp_path: Path) -> None:
    ray.init(**{**INIT, "_object_spilling_directory": str(tmp_path)})
    assert ray.nodes()[0]["Labels"] == {"zone": "here"}
    # More than the store's memory.
    kept = [ray.put(np.full(20 << 20, number, np.uint8)) for number in range(6)]
    assert list(tmp_path.iterdir()), "objects go to the directory"
    assert [ray.get(ref)[-1] for ref in kept] == list(range(6))
    ray.shutdown(wait_for_processes=True)


def test_init_refuses_others(fresh: None) -> None:
    with pytest.raises(RuntimeError, match="Unknown keyword argument"):
        ray.init(nonsense=1)
    with pytest.raises(NotImplementedError, match="_tracing_startup_hook"):
        ray.init(_tracing_startup_hook="module:function")
    with pytest.raises(ValueError, match="labels"):
        ray.init(labels={"zone": 1})
    assert not ray.is_initialized()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_take_the_arguments_of_ray(name: str) -> None:
    found: Any = ray
    for part in name.split("."):
        found = getattr(found, part)
    assert set(inspect.signature(found).parameters) >= FUNCTIONS[name]


def test_options_are_those_of_ray() -> None:
    assert OF_TASKS - _options._TASK == set()
    assert OF_ACTORS - _options._ACTOR == set()
    assert OF_METHODS - _actor._METHOD == set()


@ray.remote
class Echo:
    def echo(self, value: Any) -> Any:
        return value

    @ray.method(_generator_backpressure_num_objects=2)
    def few(self, path: str) -> Iterator[int]:
        for number in range(100):
            Path(path, str(number)).touch()
            yield number


@ray.remote
def waits_for(path: str) -> str:
    while not Path(path).exists():
        pass
    return path


def test_arguments_of_put_and_get(session: None) -> None:
    owner = Echo.remote()
    assert ray.get(ray.put(1, _owner=owner), _use_object_store=True) == 1
    assert ray.get(ray.put(1, _tensor_transport="object_store")) == 1
    with pytest.raises(TypeError, match="_owner"):
        ray.put(1, _owner="nobody")  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="nccl"):
        ray.put(1, _tensor_transport="nccl")


def test_options_without_a_meaning_on_one_machine(session: None) -> None:
    @ray.remote
    def one() -> int:
        return 1

    options: list[dict[str, Any]] = [
        {"label_selector": {"zone": "a"}, "fallback_strategy": [{"label_selector": {"zone": "b"}}]},
        {"scheduling_strategy": NodeLabelSchedulingStrategy({"zone": In("a"), "gpu": Exists()})},
        {"scheduling_strategy": NodeLabelSchedulingStrategy({}, soft={"zone": NotIn("a"), "gpu": DoesNotExist()})},
        {"_num_objects_per_yield": 1, "object_store_memory": None},
        {"placement_group": "default", "placement_group_bundle_index": -1},
        {"placement_group": None, "placement_group_capture_child_tasks": False},
        {"runtime_env": {"excludes": ["*.log"], "pip": [], "conda": None, "uv": []}},
    ]
    for some in options:
        assert ray.get(one.options(**some).remote()) == 1, some
    assert ray.get(Echo.options(enable_tensor_transport=False, object_store_memory=1).remote().echo.remote(1)) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"fallback_strategy": {}}, TypeError),
        ({"fallback_strategy": [{"zone": "a"}]}, ValueError),
        ({"_num_objects_per_yield": 2}, NotImplementedError),
        ({"object_store_memory": 1}, ValueError),
        ({"accelerator_type": "A100"}, NotImplementedError),
        ({"placement_group_bundle_index": 1}, ValueError),
        ({"_generator_backpressure_num_objects": 0}, ValueError),
        ({"runtime_env": {"pip": ["a package"]}}, ValueError),
        ({"nonsense": 1}, ValueError),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ray.remote(**options)(len)


def test_options_of_actors_that_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="enable_tensor_transport"):
        Echo.options(enable_tensor_transport=True)
    with pytest.raises(ValueError, match="_actor_generator_backpressure_num_objects"):
        Echo.options(_actor_generator_backpressure_num_objects=0)
    with pytest.raises(NotImplementedError, match="tensor_transport"):
        ray.method(tensor_transport="nccl")
    for wrong in (lambda: In(), lambda: NotIn(1), lambda: NodeLabelSchedulingStrategy({})):  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            wrong()


def test_the_old_options_of_placement_groups(session: None) -> None:
    group = placement_group([{"CPU": 1}])

    @ray.remote(num_cpus=1)
    def where() -> float:
        return ray.available_resources().get("CPU", 0)

    assert group.wait(60)
    # Of two CPUs the group has one: a call in the group leaves the other one free.
    assert ray.get(where.options(placement_group=group).remote()) == 1
    assert ray.get(where.remote()) == 0
    strategy = PlacementGroupSchedulingStrategy(group)
    with pytest.raises(ValueError, match="scheduling_strategy"):
        where.options(placement_group=group, scheduling_strategy=strategy)
    with pytest.raises(ValueError, match="index 3"):
        where.options(placement_group=group, placement_group_bundle_index=3)
    remove_placement_group(group)


def test_calls_out_of_order(session: None, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    made = Echo.options(name="out of order", allow_out_of_order_execution=True).remote()
    for actor in (made, ray.get_actor("out of order"), ray.get(ray.put(made))):
        held = actor.echo.remote(waits_for.remote(gate))
        assert ray.get(actor.echo.remote(2)) == 2
        assert not ray.wait([held], timeout=0)[0]
    ordered = Echo.remote()
    first = ordered.echo.remote(waits_for.remote(gate))
    second = ordered.echo.remote(2)
    assert ray.wait([second], timeout=0.2) == ([], [second])
    Path(gate).touch()
    assert ray.get([held, first, second]) == [gate, gate, 2]


def test_items_in_flight(session: None, tmp_path: Path) -> None:
    kept = Echo.options(name="few").remote()
    limited = Echo.options(_actor_generator_backpressure_num_objects=1).remote()
    for number, (actor, most) in enumerate([(kept, 2), (ray.get_actor("few"), 2), (limited, 1)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        stream = actor.few.remote(str(folder))
        taken = next(stream)
        assert ray.get(taken) == 0
        ray.wait([stream], timeout=5)
        # The item that was taken, those in flight, and the one that the function has made and that waits.
        assert len(list(folder.iterdir())) <= 1 + 2 * most + 1
        del stream, taken
