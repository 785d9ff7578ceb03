"""``util``: serializers, metrics, iterators, groups of actors, placement groups; and ``experimental.internal_kv``."""

from __future__ import annotations

import threading
from typing import Any

import ray

from programs import raised


@ray.remote
def _echo(value: Any) -> Any:
    return value


class _Locked:
    def __init__(self, value: int) -> None:
        self.value, self.lock = value, threading.Lock()


def a_serializer_of_a_class() -> Any:
    before = raised(lambda: ray.put(_Locked(1)))
    ray.util.register_serializer(_Locked, serializer=lambda locked: locked.value, deserializer=_Locked)
    found = ray.get(ray.put([_Locked(5)]))[0].value, ray.get(ray.remote(lambda locked: locked.value).remote(_Locked(6)))
    ray.util.deregister_serializer(_Locked)
    return before, found, raised(lambda: ray.put(_Locked(1)))


def what_can_be_sent() -> Any:
    return ray.util.inspect_serializability(len, name="length")


def what_cannot_be_sent() -> Any:
    lock = threading.Lock()

    def uses() -> Any:
        return lock

    can, failures = ray.util.inspect_serializability(uses, name="uses")
    return can, type(failures).__name__, len(failures)


def a_counter() -> Any:
    from ray.util.metrics import Counter

    counter = Counter("calls", description="Calls.", tag_keys=("kind",))
    counter.set_default_tags({"kind": "a"})
    return [
        counter.inc(2),
        counter.inc(1, tags={"kind": "b"}),
        raised(lambda: counter.inc(-1)),
        raised(lambda: counter.inc(1, tags={"wrong": "b"})),
        counter.info["name"],
        counter.info["tag_keys"],
        counter.info["default_tags"],
    ]


def a_gauge() -> Any:
    from ray.util.metrics import Gauge

    gauge = Gauge("level", description="Level.", tag_keys=("kind",))
    return (
        gauge.set(5, tags={"kind": "a"}),
        raised(lambda: gauge.set("wrong", tags={"kind": "a"})),
        raised(lambda: gauge.set(1)),
    )


def a_histogram() -> Any:
    from ray.util.metrics import Histogram

    histogram = Histogram("times", description="Times.", boundaries=[0.1, 1, 10], tag_keys=("kind",))
    return (
        histogram.observe(0.5, tags={"kind": "a"}),
        histogram.info["boundaries"],
        raised(lambda: Histogram("none", boundaries=[])),
        raised(lambda: Histogram("negative", boundaries=[-1, 1])),
    )


def metrics_that_cannot_be() -> Any:
    from ray.util.metrics import Counter

    return (
        raised(lambda: Counter("")),
        raised(lambda: Counter("a", tag_keys="kind")),
        raised(lambda: Counter("a", tag_keys=(1,))),
        raised(lambda: Counter("a", tag_keys=("b",)).set_default_tags({"c": "d"})),
        raised(lambda: Counter("a", tag_keys=("b",)).set_default_tags({"b": 1})),
    )


def keys_and_values() -> Any:
    from ray.experimental import internal_kv as kv

    found = [
        kv._internal_kv_initialized(),
        kv._internal_kv_put("key", "value"),
        kv._internal_kv_get("key"),
        kv._internal_kv_exists("key"),
        kv._internal_kv_put("key", "other", overwrite=False),
        kv._internal_kv_get("key"),
        kv._internal_kv_put("key", "third"),
        kv._internal_kv_get("key"),
        kv._internal_kv_list("ke"),
        kv._internal_kv_del("key"),
        kv._internal_kv_get("key"),
        kv._internal_kv_exists("key"),
    ]
    kv._internal_kv_put("key", "spaced", namespace="space")
    return [*found, kv._internal_kv_get("key"), kv._internal_kv_get("key", namespace="space")]


def keys_and_values_of_other_processes() -> Any:
    from ray.experimental import internal_kv as kv

    @ray.remote
    def write() -> None:
        from ray.experimental import internal_kv

        internal_kv._internal_kv_put("from a call", "yes")

    ray.get(write.remote())
    return kv._internal_kv_get("from a call")


def a_placement_group() -> Any:
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
    ready = ray.get(group.ready(), timeout=60) is not None, group.wait(30)
    strategy = PlacementGroupSchedulingStrategy(placement_group=group)
    found = ray.get(_echo.options(scheduling_strategy=strategy).remote(5))
    count, bundles = group.bundle_count, group.bundle_specs
    remove_placement_group(group)
    return ready, found, count, bundles


def placement_groups_that_cannot_be() -> Any:
    from ray.util.placement_group import placement_group

    return [
        raised(lambda: placement_group([])),
        raised(lambda: placement_group([{}])),
        raised(lambda: placement_group([{"CPU": 1}], strategy="WRONG")),
        raised(lambda: placement_group([{"CPU": 0}])),
        raised(lambda: placement_group({"CPU": 1})),
        raised(lambda: placement_group([{"CPU": 1}], lifetime="wrong")),
    ]


def the_current_placement_group() -> Any:
    return ray.util.get_current_placement_group()


def a_graph_of_functions() -> Any:
    @ray.remote
    def add(a: int, b: int) -> int:
        return a + b

    node = add.bind(add.bind(1, 2), 3)
    return ray.get(node.execute())


def a_graph_with_an_input() -> Any:
    from ray.dag import InputNode

    @ray.remote
    def add(a: int, b: int) -> int:
        return a + b

    with InputNode() as given:
        node = add.bind(given, add.bind(given, 1))
    return ray.get(node.execute(5)), ray.get(node.execute(10))


def a_graph_of_an_actor() -> Any:
    @ray.remote
    class Counter:
        def __init__(self, value: int) -> None:
            self.value = value

        def add(self, n: int) -> int:
            self.value += n
            return self.value

    node = Counter.bind(5).add.bind(2)
    return ray.get(node.execute())


def a_named_list_of_actors() -> Any:
    return ray.util.list_named_actors(), ray.util.list_named_actors(all_namespaces=True)
