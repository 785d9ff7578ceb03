"""Counters, gauges and histograms of a process: ``collected`` returns what this process has recorded."""

from __future__ import annotations

import bisect
import re
import threading
from typing import Any

_Tags = dict[str, str]
_lock = threading.Lock()
_all: dict[str, Metric] = {}


class Metric:
    """What the kinds of metrics have in common: a name, and tags that tell its values apart."""

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        if not re.fullmatch(r"[A-Za-z_:][\w:]*", name, re.ASCII):
            raise ValueError(f"the name of a metric cannot be {name!r}: letters, digits, and _")
        keys = () if tag_keys is None else tag_keys
        if not isinstance(keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
        for key in keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._name, self._description, self._keys = name, description, keys
        self._default_tags: _Tags = {}
        with _lock:
            # Objects of one name, as of a function that is called twice, are one metric.
            known = _all.setdefault(name, self)
            self._values: dict[tuple[tuple[str, str], ...], Any] = known._values if known is not self else {}

    def set_default_tags(self, default_tags: _Tags) -> Metric:
        """Set the tags that values have where nothing else is said."""
        for key, value in default_tags.items():
            if key not in self._keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = default_tags
        return self

    @property
    def info(self) -> dict[str, Any]:
        """The name, the description and the tags."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._keys,
            "default_tags": self._default_tags,
        }

    def _tagged(self, tags: _Tags | None) -> tuple[tuple[str, str], ...]:
        given = {**self._default_tags, **(tags or {})}
        for value in given.values():
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        missing = [key for key in self._keys if key not in given]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return tuple((key, given[key]) for key in self._keys)

    def __reduce__(self) -> Any:
        return (type(self), (self._name, self._description, self._keys), {"_default_tags": self._default_tags})


class Counter(Metric):
    """A number that grows."""

    def inc(self, value: float = 1.0, tags: _Tags | None = None) -> None:
        """Add to the value."""
        if not isinstance(value, int | float):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        place = self._tagged(tags)
        with _lock:
            self._values[place] = self._values.get(place, 0.0) + value


class Gauge(Metric):
    """A number that goes up and down."""

    def set(self, value: float | None, tags: _Tags | None = None) -> None:
        """Set the value. ``None`` changes nothing."""
        if value is None:
            return
        if not isinstance(value, int | float):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        place = self._tagged(tags)
        with _lock:
            self._values[place] = float(value)


class Histogram(Metric):
    """How many values lie between boundaries."""

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: list[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError("boundaries argument should be provided when using the Histogram class.")
        if min(boundaries) <= 0:
            raise ValueError(f"Invalid `boundaries` argument: {boundaries}: all must be above 0")
        self.boundaries = boundaries

    def observe(self, value: float, tags: _Tags | None = None) -> None:
        """Count a value."""
        if not isinstance(value, int | float):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        place = self._tagged(tags)
        with _lock:
            counts = self._values.setdefault(place, [0] * (len(self.boundaries) + 1))
            counts[bisect.bisect_left(self.boundaries, value)] += 1

    @property
    def info(self) -> dict[str, Any]:
        """The name, the description, the tags and the boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def __reduce__(self) -> Any:
        arguments = (self._name, self._description, self.boundaries, self._keys)
        return (type(self), arguments, {"_default_tags": self._default_tags})


def collected() -> dict[str, dict[tuple[tuple[str, str], ...], Any]]:
    """Return the values of this process: of each metric, by their tags. Those of a histogram are its counts."""
    with _lock:
        return {
            name: {tags: list(value) if isinstance(value, list) else value for tags, value in metric._values.items()}
            for name, metric in _all.items()
        }


__all__ = ["Counter", "Gauge", "Histogram", "Metric", "collected"]
