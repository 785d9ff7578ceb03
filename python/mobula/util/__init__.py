"""What is useful on top of tasks and actors, with Ray's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobula._actor import list_named_actors
from mobula._serialization import deregister_serializer, register_serializer

# Not later: the function has the name of its module, which takes its place when it is imported first.
from mobula.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

if TYPE_CHECKING:
    from mobula.util.actor_pool import ActorPool
    from mobula.util.check_serialize import inspect_serializability
    from mobula.util.helpers import as_completed, map_unordered

# Where names come from that few programs use.
_LATER = {
    "ActorPool": "actor_pool",
    "as_completed": "helpers",
    "inspect_serializability": "check_serialize",
    "map_unordered": "helpers",
}

# Modules that are attributes of this one without an import of their own.
_MODULES = frozenset(
    {
        "accelerators",
        "actor_group",
        "actor_pool",
        "check_serialize",
        "helpers",
        "iter",
        "joblib",
        "metrics",
        "multiprocessing",
        "queue",
        "scheduling_strategies",
        "state",
    }
)

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]


def get_node_ip_address(address: str = "") -> str:
    """Return the address of this machine, which is the only one."""
    return "127.0.0.1"


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"mobula.util.{name}")
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'mobula.util' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"mobula.util.{module}"), name)
    # A module of the name has taken its place meanwhile.
    globals()[name] = found
    return found
