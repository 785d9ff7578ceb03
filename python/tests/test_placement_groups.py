"""Placement groups, with Ray's names: if these fail, bundles are not reserved together, or not given back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import mobula
from mobula.exceptions import ActorPlacementGroupRemoved, TaskPlacementGroupRemoved
from mobula.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from mobula.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    mobula.shutdown()
    mobula.init(num_cpus=3, resources={"disk": 1})
    yield
    mobula.shutdown()


@mobula.remote
def square(x: int) -> int:
    return x * x


@mobula.remote
def sleep() -> None:
    while True:
        time.sleep(0.01)


@mobula.remote(num_cpus=1)
class Holder:
    def one(self) -> int:
        return 1


def eventually(is_so: Any) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_group_places_calls_and_actors() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1, "disk": 1}], strategy="PACK", name="both")
    assert mobula.get(group.ready(), timeout=60) == group
    assert group.wait(60) and group.bundle_count == 2 and group.bundle_specs[0] == {"CPU": 1.0}
    assert mobula.available_resources()["CPU"] == 1.0
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    assert mobula.get(square.options(scheduling_strategy=strategy).remote(3), timeout=60) == 9
    anywhere = PlacementGroupSchedulingStrategy(placement_group=group)
    actor = Holder.options(resources={"disk": 1}, scheduling_strategy=anywhere).remote()
    assert mobula.get(actor.one.remote(), timeout=60) == 1
    assert get_placement_group("both") == group
    table = placement_group_table(group)
    assert (table["state"], table["strategy"], table["name"]) == ("CREATED", "PACK", "both")
    assert placement_group_table()[group.id]["bundles"][1] == {"CPU": 1.0, "disk": 1.0}
    remove_placement_group(group)
    with pytest.raises(ActorPlacementGroupRemoved):
        mobula.get(actor.one.remote(), timeout=60)
    assert placement_group_table(group)["state"] == "REMOVED"
    with pytest.raises(ValueError, match="Failed to look up placement group with name: both"):
        get_placement_group("both")
    eventually(lambda: mobula.available_resources().get("CPU") == 3.0)


def test_the_calls_of_a_removed_group_end() -> None:
    group = placement_group([{"CPU": 2}])
    strategy = PlacementGroupSchedulingStrategy(group)
    running = sleep.options(scheduling_strategy=strategy).remote()
    waiting = square.options(scheduling_strategy=strategy, num_cpus=2).remote(2)
    assert group.wait(60)
    remove_placement_group(group)
    for call in (running, waiting, group.ready()):
        with pytest.raises(TaskPlacementGroupRemoved):
            mobula.get(call, timeout=60)
    assert mobula.get(square.remote(4), timeout=60) == 16


def test_a_group_waits_for_its_resources() -> None:
    first = placement_group([{"CPU": 3}])
    second = placement_group([{"CPU": 2}])
    assert first.wait(60) and not second.wait(0.1)
    ready, waiting = mobula.wait([second.ready()], timeout=0.1)
    assert not ready and placement_group_table(second)["state"] == "PENDING"
    remove_placement_group(first)
    assert mobula.get(waiting[0], timeout=60) == second


def test_what_cannot_be_is_an_error_at_once() -> None:
    for bundles, strategy in [([{"CPU": 1}, {"CPU": 1}], "STRICT_SPREAD"), ([{"CPU": 4}], "PACK"), ([], "PACK")]:
        with pytest.raises(ValueError):
            placement_group(bundles, strategy=strategy)
    with pytest.raises(NotImplementedError):
        placement_group([{"GPU": 1}])
    group = placement_group([{"CPU": 1}])
    with pytest.raises(ValueError, match="bundle index 1 is invalid"):
        PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
    with pytest.raises(ValueError, match="bundle of its placement group"):
        mobula.get(square.options(num_cpus=2, scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote(1))


@mobula.remote(num_cpus=1)
def group_of_child() -> Any:
    """Return the bundles of this call's group, and of a call's that it makes while it waits."""
    mine = get_current_placement_group()
    child = mobula.get(group_alone.remote())
    free = mobula.get(group_alone.options(scheduling_strategy="DEFAULT").remote())
    return mine and mine.id, child, free


@mobula.remote(num_cpus=1)
def group_alone() -> str | None:
    found = get_current_placement_group()
    return found and found.id


@mobula.remote(num_cpus=1)
class Parent:
    def child(self) -> str | None:
        found: str | None = mobula.get(group_alone.options(num_cpus=0).remote())
        return found


def test_a_group_captures_what_its_calls_make() -> None:
    # A call in the group alone has the disk, so the child has its resource in the bundle of the parent that waits.
    group = placement_group([{"CPU": 1, "disk": 1}])
    capturing = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    assert get_current_placement_group() is None
    in_group = group_of_child.options(scheduling_strategy=capturing)
    assert mobula.get(in_group.remote(), timeout=60) == (group.id, group.id, None)
    # The same functions, called as before, are in no group.
    assert mobula.get(group_of_child.remote(), timeout=60) == (None, None, None)
    plain = PlacementGroupSchedulingStrategy(group)
    assert mobula.get(group_of_child.options(scheduling_strategy=plain).remote(), timeout=60) == (None, None, None)
    parent = Parent.options(scheduling_strategy=capturing).remote()
    assert mobula.get(parent.child.remote(), timeout=60) == group.id
    remove_placement_group(group)
    with pytest.raises(ActorPlacementGroupRemoved):
        mobula.get(parent.child.remote(), timeout=60)
