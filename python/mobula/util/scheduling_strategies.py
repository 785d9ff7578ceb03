"""Strategies that say where a call runs. There is one machine, so only placement groups change anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobula.util.placement_group import PlacementGroup


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """Run on this machine: the only one that there is."""

    node_id: str
    soft: bool
    _spill_on_unavailable: bool = False
    _fail_on_unavailable: bool = False


class PlacementGroupSchedulingStrategy:
    """Run in a placement group: in one of its bundles, or in any (-1).

    With ``placement_group_capture_child_tasks``, the calls and actors that a call or an actor makes are in any bundle
    of the group, too, and so on, unless they have a strategy of their own.
    """

    def __init__(
        self,
        placement_group: PlacementGroup,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        index, count = placement_group_bundle_index, placement_group.bundle_count
        if not -1 <= index < max(count, 1):
            raise ValueError(
                f"placement group bundle index {index} is invalid. Valid placement group indexes: 0-{count - 1}"
            )
        self.placement_group = placement_group
        self.placement_group_bundle_index = index
        self.placement_group_capture_child_tasks = bool(placement_group_capture_child_tasks)
