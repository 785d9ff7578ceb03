"""Placement groups: resources that are reserved together. There are none, and what asks for one raises."""

from __future__ import annotations

from typing import Any, NoReturn

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """For annotations: no object of this class can be made."""

    def __init__(self, *_: Any, **__: Any) -> None:
        _absent()


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    **_: Any,
) -> PlacementGroup:
    """Check the arguments as Ray does, and raise ``NotImplementedError``."""
    if strategy not in _STRATEGIES:
        raise ValueError(f"Invalid placement group strategy {strategy}. Supported strategies are: {_STRATEGIES}.")
    if not isinstance(bundles, list) or not bundles:
        raise ValueError("Placement group bundles must be a list, and have at least one bundle.")
    for bundle in bundles:
        if not isinstance(bundle, dict) or not bundle or not any(bundle.values()):
            raise ValueError(f"Bundles must be a non-empty dictionary of resources. Found {bundle}.")
    if lifetime not in (None, "detached"):
        raise ValueError(f"Invalid placement group `lifetime` argument {lifetime!r}: None, or 'detached'.")
    _absent()


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Raise ``NotImplementedError``: there is no group."""
    _absent()


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """Raise ``ValueError``: there is no group of any name."""
    raise ValueError(f"Failed to look up placement group with name: {placement_group_name}")


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """Return the groups: none."""
    return {}


def get_current_placement_group() -> PlacementGroup | None:
    """Return the group that the running call is in: none."""
    return None


def _absent() -> NoReturn:
    raise NotImplementedError(
        "mobula has no placement groups: demand resources where they are used, by num_cpus and resources. On one "
        "machine, an actor that demands the sum of them has all or none"
    )


__all__ = [
    "PlacementGroup",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]
