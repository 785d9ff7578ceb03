"""Strategies that say where a call runs. There is one machine, so they change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """Run on this machine: the only one that there is."""

    node_id: str
    soft: bool
    _spill_on_unavailable: bool = False
    _fail_on_unavailable: bool = False


class PlacementGroupSchedulingStrategy:
    """Run in a placement group. There are none, so this raises ``NotImplementedError``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("mobula has no placement groups: demand resources with num_cpus and resources")
