"""Counters, gauges and histograms of a program.

``mobula metrics`` exports those of all processes for Prometheus; ``collected`` returns what this process has recorded.
A value is kept by the process, and written into a file of the session's: a system call for each change. ::

    from mobula.util.metrics import Counter, Gauge, Histogram

    requests = Counter("requests", description="Requests by path", tag_keys=("path",))
    requests.inc(2, tags={"path": "/"})
    Gauge("queue_length").set(7)
    Histogram("latency_s", boundaries=[0.01, 0.1, 1]).observe(0.2)
"""

from __future__ import annotations

import re
import threading
from typing import Any, ClassVar

from mobula._mobula import Series

_Tags = dict[str, str]
_lock = threading.Lock()
_all: dict[str, Metric] = {}


class Metric:
    """What the kinds of metrics have in common: a name, and tags that tell its values apart."""

    _kind: ClassVar[str] = ""
    boundaries: list[float]

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
            self._values: dict[tuple[tuple[str, str], ...], Series] = known._values if known is not self else {}

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

    def _series(self, tags: _Tags | None) -> Series:
        place = self._tagged(tags)
        series = self._values.get(place)
        if series is None:
            # Names of labels are more limited than names of tags.
            labels = [(re.sub(r"\W", "_", name, flags=re.ASCII), value) for name, value in place]
            bounds = [float(bound) for bound in getattr(self, "boundaries", [])]
            series = Series(self._kind, self._name, self._description, labels, bounds)
            with _lock:
                series = self._values.setdefault(place, series)
        return series

    def _value(self, series: Series) -> Any:
        return series.values()[0]

    def __reduce__(self) -> Any:
        return (type(self), (self._name, self._description, self._keys), {"_default_tags": self._default_tags})


class Counter(Metric):
    """A number that grows."""

    _kind = "counter"

    def inc(self, value: float = 1.0, tags: _Tags | None = None) -> None:
        """Add to the value."""
        if not isinstance(value, int | float):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        self._series(tags).add(float(value))


class Gauge(Metric):
    """A number that goes up and down."""

    _kind = "gauge"

    def set(self, value: float | None, tags: _Tags | None = None) -> None:
        """Set the value. ``None`` changes nothing."""
        if value is None:
            return
        if not isinstance(value, int | float):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        self._series(tags).set(float(value))


class Histogram(Metric):
    """How many values lie between boundaries."""

    _kind = "histogram"

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
        self._series(tags).observe(float(value))

    def _value(self, series: Series) -> Any:
        return [int(count) for count in series.values()[:-1]]

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
        metrics = [(name, metric, dict(metric._values)) for name, metric in _all.items()]
    return {name: {tags: metric._value(series) for tags, series in values.items()} for name, metric, values in metrics}


__all__ = ["Counter", "Gauge", "Histogram", "Metric", "collected"]
