"""Placement groups: resources that are reserved together, or not at all, in bundles.

There is one machine, so the strategies ``PACK``, ``SPREAD`` and ``STRICT_PACK`` mean the same. ``STRICT_SPREAD`` of
several bundles can never be, and is an error at once. So is a group that demands more than the session has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobula import _mobula

if TYPE_CHECKING:
    from mobula import ObjectRef

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """Bundles of resources, which calls and actors are placed in by ``PlacementGroupSchedulingStrategy``."""

    def __init__(self, number: int, bundles: list[dict[str, float]]) -> None:
        self._number, self._bundles = number, bundles

    @property
    def id(self) -> str:
        """The number of the group, as text."""
        return f"{self._number:016x}"

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The resources of its bundles."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        """The number of its bundles."""
        return len(self._bundles)

    @property
    def is_empty(self) -> bool:
        """Whether it has no bundles: whether it is none."""
        return not self._bundles

    @staticmethod
    def empty() -> PlacementGroup:
        """Return the empty group: a call in it may run anywhere."""
        return PlacementGroup(0, [])

    def ready(self) -> ObjectRef[PlacementGroup]:
        """Return a reference that is there as soon as the group has its resources; its value is the group."""
        import mobula
        from mobula.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        placed = mobula.remote(num_cpus=0, max_retries=0)(_itself)
        found: ObjectRef[PlacementGroup] = placed.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(self), name="placement_group.ready"
        ).remote(self)
        return found

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait until the group has its resources; return whether it has them in time."""
        for core, *_ in _mobula.PlacementGroup.all():
            if core.number == self._number:
                return core.wait(float(timeout_seconds))
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id}, {self._bundles})"


def _itself(group: PlacementGroup) -> PlacementGroup:
    return group


def _of_core(core: _mobula.PlacementGroup) -> PlacementGroup:
    return PlacementGroup(core.number, core.bundles)


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserve bundles of resources, all or none; return at once. ``ready`` and ``wait`` say when they are there.

    ::

        import mobula as ray
        from mobula.util.placement_group import placement_group, remove_placement_group
        from mobula.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        ray.init(num_cpus=2)
        group = placement_group([{"CPU": 1}, {"CPU": 1}])
        assert group.wait(60)
        square = ray.remote(lambda x: x * x)
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
        assert ray.get(square.options(scheduling_strategy=place).remote(3)) == 9
        remove_placement_group(group)

    Args:
        bundles: The resources of each bundle.
        strategy: ``PACK``, ``SPREAD``, ``STRICT_PACK`` or ``STRICT_SPREAD``: there is one machine, so all but the last
            mean the same.
        name: A name by which ``get_placement_group`` finds it.
        lifetime: ``"detached"``: it stays when the actor that made it ends.
        bundle_label_selector: No effect.
        topology_strategy: No effect.

    Raises:
        ValueError: The bundles are invalid, or can never be there.
    """
    if strategy not in _STRATEGIES:
        raise ValueError(f"Invalid placement group strategy {strategy}. Supported strategies are: {_STRATEGIES}.")
    if not isinstance(bundles, list) or not bundles:
        raise ValueError("Placement group bundles must be a list, and have at least one bundle.")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not bundle or not any(bundle.values()):
            raise ValueError(f"Bundles must be a non-empty dictionary of resources. Found {bundle}.")
        if bundle.get("GPU"):
            raise NotImplementedError("mobula has no bundles of GPUs: demand GPUs by num_gpus, outside of the group")
    if lifetime not in (None, "detached"):
        raise ValueError(f"Invalid placement group `lifetime` argument {lifetime!r}: None, or 'detached'.")
    from mobula._session import ensure

    ensure()
    return _of_core(_mobula.PlacementGroup(bundles, strategy, name, lifetime == "detached"))


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give the resources of a group back. Calls and actors in it end."""
    for core, *_ in _mobula.PlacementGroup.all():
        if core.number == placement_group._number:
            core.remove()


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Return the group of this name; raise ``ValueError`` if there is none."""
    if not placement_group_name:
        raise ValueError("Please supply a non-empty value to get_placement_group")
    try:
        return _of_core(_mobula.PlacementGroup.named(placement_group_name))
    except ValueError:
        raise ValueError(f"Failed to look up placement group with name: {placement_group_name}") from None


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """Return the state of a group, or of all groups by their ids."""
    found = {}
    for core, name, namespace, strategy, state in _mobula.PlacementGroup.all():
        group = _of_core(core)
        found[group.id] = {
            "placement_group_id": group.id,
            "name": name,
            "ray_namespace": namespace,
            "bundles": dict(enumerate(group.bundle_specs)),
            "strategy": strategy,
            "state": state,
        }
    return found if placement_group is None else found.get(placement_group.id, {})


def get_current_placement_group() -> PlacementGroup | None:
    """Return the group that captures what the running call makes; ``None`` if there is none."""
    from mobula._environments import capturing_group

    found = capturing_group()
    return None if found is None else PlacementGroup(*found)


__all__ = [
    "PlacementGroup",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]
