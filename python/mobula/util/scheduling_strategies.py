"""Strategies that say where a call runs. There is one machine, so only placement groups change anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    of the group, too, and so on, unless they have a strategy of their own. ::

        import mobula as ray
        from mobula.util.placement_group import get_current_placement_group, placement_group
        from mobula.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        ray.init(num_cpus=2)
        group = placement_group([{"CPU": 1}])
        place = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        current = ray.remote(get_current_placement_group)
        assert ray.get(current.options(scheduling_strategy=place).remote()) == group
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


class _OneOf:
    """A condition for a label of a machine: values of it."""

    def __init__(self, *values: str) -> None:
        if not values or not all(isinstance(value, str) for value in values):
            name = type(self).__name__
            raise ValueError(f"{name} cannot have {values!r}: texts, at least one, as in {name}('value1', 'value2')")
        self.values = list(values)


class In(_OneOf):
    """The label has one of these values."""


class NotIn(_OneOf):
    """The label has none of these values."""


class Exists:
    """There is such a label."""


class DoesNotExist:
    """There is no such label."""


@dataclass(frozen=True)
class _Condition:
    key: str
    operator: In | NotIn | Exists | DoesNotExist


class NodeLabelSchedulingStrategy:
    """Run on a machine whose labels meet conditions. There is one machine, so it has no effect."""

    def __init__(
        self,
        hard: dict[str, In | NotIn | Exists | DoesNotExist] | None,
        *,
        soft: dict[str, In | NotIn | Exists | DoesNotExist] | None = None,
    ) -> None:
        self.hard, self.soft = _conditions(hard, "hard"), _conditions(soft, "soft")
        if not self.hard and not self.soft:
            raise ValueError("The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be empty.")


def _conditions(given: Any, name: str) -> list[_Condition]:
    if given is None:
        return []
    if not isinstance(given, dict):
        raise ValueError(f'The {name} parameter must be a map (e.g. {{"key1": In("value1")}}), and is {type(given)}.')
    for key, operator in given.items():
        if not isinstance(key, str) or not isinstance(operator, In | NotIn | Exists | DoesNotExist):
            raise ValueError(
                f"The {name} parameter cannot have {key!r}: {operator!r}: a text, and one of `In`, `NotIn`, `Exists` "
                "or `DoesNotExist`."
            )
    return [_Condition(key, operator) for key, operator in given.items()]
