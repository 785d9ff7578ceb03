"""Resources, the session's machines, and what a process knows of itself."""

from __future__ import annotations

import os
import time
from typing import Any

import ray

from programs import raised, until

INIT = {"num_cpus": 4, "num_gpus": 2, "resources": {"disk": 2, "odd": 2}}


@ray.remote
def _echo(value: Any = None) -> Any:
    return value


@ray.remote(num_cpus=0)
class _Holder:
    def free(self) -> dict[str, float]:
        return _main(ray.available_resources())

    def hold(self) -> bool:
        return True


def _main(found: dict[str, float]) -> dict[str, float]:
    return {name: found[name] for name in ("CPU", "GPU", "disk", "odd") if name in found}


def _settled(**wanted: float) -> bool:
    return until(lambda: all(ray.available_resources().get(name, 0) == of for name, of in wanted.items()))


def the_resources_of_the_session() -> Any:
    return _main(ray.cluster_resources())


def the_names_of_resources() -> Any:
    found = ray.cluster_resources()
    return [name in found for name in ("CPU", "GPU", "memory", "object_store_memory", "disk")]


def all_are_free() -> Any:
    return _settled(CPU=4, GPU=2, disk=2)


def an_actor_has_its_resources() -> Any:
    actor = _Holder.options(num_cpus=2, resources={"disk": 1}).remote()
    ray.get(actor.hold.remote())
    held = _settled(CPU=2, disk=1)
    del actor
    return held, _settled(CPU=4, disk=2)


def an_actor_holds_no_cpu_by_default() -> Any:
    class Plain:
        def hold(self) -> bool:
            return True

    actor = ray.remote(Plain).remote()
    ray.get(actor.hold.remote())
    return _settled(CPU=4)


def parts_of_a_resource() -> Any:
    actors = [_Holder.options(num_cpus=0.25, resources={"odd": 0.5}).remote() for _ in range(3)]
    ray.get([actor.hold.remote() for actor in actors])
    return _settled(CPU=3.25, odd=0.5)


def a_resource_limits_how_many_run_at_once() -> Any:
    @ray.remote(resources={"disk": 1}, num_cpus=0)
    def when() -> tuple[float, float]:
        begin = time.monotonic()
        time.sleep(0.2)
        return begin, time.monotonic()

    times = sorted(ray.get([when.remote() for _ in range(4)]))
    return max(sum(begin <= at < end for begin, end in times) for at, _ in times) <= 2


def a_call_that_waits_gives_its_cpu() -> Any:
    @ray.remote(num_cpus=4)
    def outer() -> int:
        return ray.get(_echo.options(num_cpus=4).remote(5))

    return ray.get(outer.remote())


def a_gpu() -> Any:
    @ray.remote(num_gpus=1)
    def ids() -> Any:
        return len(ray.get_gpu_ids()), len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))

    return ray.get(ids.remote())


def two_gpus() -> Any:
    return ray.get(ray.remote(num_gpus=2)(lambda: sorted(map(int, ray.get_gpu_ids()))).remote())


def no_gpu() -> Any:
    return ray.get(ray.remote(lambda: ray.get_gpu_ids()).remote()), ray.get_gpu_ids()


def parts_of_a_gpu() -> Any:
    return ray.get(ray.remote(num_gpus=0.5)(lambda: len(ray.get_gpu_ids())).remote())


def gpus_of_an_actor() -> Any:
    @ray.remote(num_gpus=1)
    class Gpu:
        def ids(self) -> int:
            return len(ray.get_gpu_ids())

    return ray.get(Gpu.remote().ids.remote())


def amounts_that_cannot_be() -> Any:
    return [
        raised(lambda: _echo.options(num_cpus=-1)),
        raised(lambda: _echo.options(num_gpus=-1)),
        raised(lambda: _echo.options(resources={"disk": -1}).remote()),
        raised(lambda: _echo.options(memory=-1)),
        raised(lambda: _echo.options(resources={"CPU": 1})),
        raised(lambda: _echo.options(resources=5)),
        raised(lambda: _echo.options(num_cpus="one")),
    ]


def gpus_that_are_no_parts_of_one() -> Any:
    return raised(lambda: ray.get(_echo.options(num_gpus=1.5).remote()))


def the_machines() -> Any:
    (node,) = ray.nodes()
    names = ("NodeID", "Alive", "NodeManagerHostname", "NodeManagerAddress", "Resources", "alive", "Labels")
    return [name in node for name in names], node["Alive"], _main(node["Resources"])


def the_node_is_the_same_everywhere() -> Any:
    node = ray.get_runtime_context().get_node_id()
    inner = ray.get(ray.remote(lambda: ray.get_runtime_context().get_node_id()).remote())
    return node == inner, node == ray.nodes()[0]["NodeID"], type(node).__name__


def the_driver_has_no_call() -> Any:
    context = ray.get_runtime_context()
    return context.get_actor_id(), context.get_actor_name()


def the_kinds_of_ids() -> Any:
    context = ray.get_runtime_context()
    found = (context.get_job_id(), context.get_node_id(), context.get_worker_id(), context.namespace)
    return [type(value).__name__ for value in found]


def the_job_is_the_same_everywhere() -> Any:
    inner = ray.get(ray.remote(lambda: ray.get_runtime_context().get_job_id()).remote())
    return inner == ray.get_runtime_context().get_job_id()


def calls_have_different_ids() -> Any:
    ids = ray.get([ray.remote(lambda: ray.get_runtime_context().get_task_id()).remote() for _ in range(5)])
    return len(set(ids)), type(ids[0]).__name__


def the_name_of_a_call() -> Any:
    @ray.remote
    def named() -> Any:
        return ray.get_runtime_context().get_task_name(), ray.get_runtime_context().get_task_function_name()

    return ray.get(named.options(name="given").remote())[0]


def the_actor_of_a_method() -> Any:
    @ray.remote
    class Knows:
        def ids(self) -> Any:
            context = ray.get_runtime_context()
            return context.get_actor_id(), context.get_actor_name()

    actor = Knows.options(name="knows").remote()
    found, name = ray.get(actor.ids.remote())
    return len(found) > 0, name


def the_current_actor() -> Any:
    @ray.remote
    class Knows:
        def me(self) -> Any:
            return ray.get_runtime_context().current_actor

    named, unnamed = Knows.options(name="current").remote(), Knows.remote()
    return ray.get(named.me.remote()) == named, raised(lambda: ray.get(unnamed.me.remote())).startswith("no error")


def the_current_actor_of_a_function() -> Any:
    return raised(lambda: ray.get_runtime_context().current_actor)


def resources_of_a_call() -> Any:
    @ray.remote(num_cpus=2, resources={"disk": 1})
    def mine() -> Any:
        return ray.get_runtime_context().get_assigned_resources()

    found = ray.get(mine.remote())
    return found["CPU"], found["disk"]


def the_environment_of_a_call() -> Any:
    @ray.remote(runtime_env={"env_vars": {"A": "b"}})
    def mine() -> Any:
        return ray.get_runtime_context().runtime_env.get("env_vars")

    return ray.get(mine.remote())


def whether_it_is_initialized() -> Any:
    return ray.is_initialized(), ray.get(ray.remote(lambda: ray.is_initialized()).remote())


def the_address_of_the_node() -> Any:
    return type(ray.util.get_node_ip_address()).__name__


def scheduling_strategies() -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    return [ray.get(_echo.options(scheduling_strategy=of).remote(1)) for of in ("SPREAD", "DEFAULT", here)]


def a_scheduling_strategy_that_there_is_not() -> Any:
    return raised(lambda: _echo.options(scheduling_strategy="OTHER").remote(1))
