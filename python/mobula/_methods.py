"""The methods of actors, as their handles know them.

A handle that comes inside a value brings its :class:`Known` along. One that is found by its name reads it from the
description that the head has: a text, made where the actor was made.
"""

from __future__ import annotations

import base64
import inspect
import json
import zlib
from typing import Any

from mobula import _options
from mobula._signature import Signature, of_method

# The attribute of a method in which `method` keeps the options.
METHOD_OPTIONS = "__mobula_method__"

# The most characters of a description. It travels in one record.
_DESCRIPTION_MAX = 8 << 10

# The options of a method that the core has: the most seconds that a call may run, and that it may take from its making
# to its end; and the number of retries when its process dies.
OfCore = tuple[float | None, float | None, int | None]
OF_CORE: OfCore = (None, None, None)

# The number of retries of a method, and the errors that are retried: all, or those of some classes.
Retries = tuple[int | None, Any]


def of_core(options: dict[str, Any], defaults: OfCore = OF_CORE) -> OfCore:
    """Return the options that the core has for methods, with defaults for those that are not named."""
    *limits, most = defaults
    timeout, deadline = (
        _options.seconds_of(name, options[name]) if name in options else default
        for name, default in zip(_options.LIMITS, limits, strict=True)
    )
    return timeout, deadline, options.get("max_task_retries", most)


class Methods:
    """The methods of a class, for its handles: their signatures, and their numbers of results."""

    def __init__(self, cls: type) -> None:
        self.signatures: dict[str, Signature | None] = {}
        self.num_returns: dict[str, int] = {}
        # The concurrency groups of methods that name one.
        self.groups: dict[str, str] = {}
        # The retries of the methods that have some.
        self.retries: dict[str, Retries | str] = {}
        # The limits of the streams that have one of their own: how many items are in flight.
        self.in_flight: dict[str, int] = {}
        # The options for the core of the methods that have some.
        self.of_core: dict[str, OfCore] = {}
        for name, function in inspect.getmembers(cls, callable):
            if name.startswith("__") and name != "__call__":
                continue
            options = getattr(function, METHOD_OPTIONS, {})
            if options.get("concurrency_group"):
                self.groups[name] = options["concurrency_group"]
            if options.get("retry_exceptions"):
                self.retries[name] = (options.get("max_task_retries"), options["retry_exceptions"])
            if options.get("_generator_backpressure_num_objects"):
                self.in_flight[name] = options["_generator_backpressure_num_objects"]
            if (own := of_core(options)) != OF_CORE:
                self.of_core[name] = own
            self.num_returns[name] = _options.num_returns_of(function, options.get("num_returns"))
            self.signatures[name] = of_method(cls, name)


class Known:
    """The methods of an actor, as its handles know them."""

    def __init__(
        self,
        num_returns: dict[str, int],
        signatures: dict[str, Signature | None],
        retries: dict[str, Retries | str],
        max_task_retries: int,
    ) -> None:
        self.num_returns, self.signatures = num_returns, signatures
        # In a handle that was found by its name, the retries of a method are still a text: the classes of errors may be
        # unknown in this process, and the text is all that a call needs.
        self.retries, self.max_task_retries = retries, max_task_retries
        # Of some streams, and of each stream of the actor: the most items in flight.
        self.in_flight: dict[str, int] = {}
        self.in_flight_max: int | None = None
        self.of_core: dict[str, OfCore] = {}
        # A call does not wait for earlier ones whose arguments are not there.
        self.is_out_of_order = False

    def limited(self, in_flight_max: int) -> int:
        """Return the most items of a stream that are in flight, within the limit of the actor."""
        return min(in_flight_max, _options.in_flight_max(self.in_flight_max, in_flight_max))

    def called_by_default(self, name: str) -> str | None:
        """As :meth:`called`, with the retries of the method itself."""
        retries = self.retries.get(name, (None, None))
        return f"{name}\2{retries}" if isinstance(retries, str) else self.called(name, None, *retries)

    def retries_of(self, name: str) -> Retries:
        """Return the number of retries of a method, and the errors that are retried."""
        found = self.retries.get(name, (None, None))
        if isinstance(found, str):
            from mobula._retries import read_description

            return read_description(found)
        return found

    def description(self) -> str:
        """Return all of this as a text, for :func:`read`."""
        methods = {name: [count, *self._details(name)] for name, count in self.num_returns.items()}
        others = [self.max_task_retries, self.in_flight, self.in_flight_max, self.is_out_of_order, self.of_core]
        found = _packed([methods, *others])
        if len(found) > _DESCRIPTION_MAX:
            # Arguments that do not fit are an error of the call then.
            methods = {name: [count, None, self._details(name)[1]] for name, count in self.num_returns.items()}
            found = _packed([methods, *others])
        if len(found) > _DESCRIPTION_MAX:
            raise ValueError(
                f"an actor with a name cannot have so many methods: the description of {len(methods)} methods takes "
                f"{len(found)} bytes, and at most {_DESCRIPTION_MAX} are possible"
            )
        return found

    def _details(self, name: str) -> tuple[Any, str]:
        """Return the arguments of a method, and its retries."""
        signature = self.signatures.get(name)
        retries = (self.called_by_default(name) or "").partition("\2")[2]
        return None if signature is None else signature.described(), retries

    def called(self, name: str, group: str | None, most: int | None, exceptions: Any) -> str | None:
        """Return the name of a method, followed by its retries, and by the group that the call runs in."""
        most = self.max_task_retries if most is None else most
        retries = ""
        if exceptions and most:
            from mobula._retries import described

            retries = f"\2{described(most, exceptions)}"
        in_group = f"\1{group}" if group else ""
        return f"{name}{retries}{in_group}" if retries or in_group else None

    def __reduce__(self) -> Any:
        known = (self.num_returns, self.signatures, self.retries, self.max_task_retries)
        return (_restored, (known, self.in_flight, self.in_flight_max, self.is_out_of_order, self.of_core))


def _restored(
    known: tuple[Any, ...],
    in_flight: dict[str, int],
    in_flight_max: int | None,
    is_out_of_order: bool,
    of_methods: dict[str, OfCore],
) -> Known:
    found = Known(*known)
    found.in_flight, found.in_flight_max, found.is_out_of_order = in_flight, in_flight_max, is_out_of_order
    found.of_core = {name: (timeout, deadline, most) for name, (timeout, deadline, most) in of_methods.items()}
    return found


def read(description: str) -> Known:
    """Return the methods that a description names."""
    methods, max_task_retries, *others = json.loads(zlib.decompress(base64.b85decode(description)))
    signatures = {name: None if of is None else Signature.of_description(of) for name, (_, of, _) in methods.items()}
    retries: dict[str, Retries | str] = {name: of for name, (_, _, of) in methods.items() if of}
    counts = {name: count for name, (count, _, _) in methods.items()}
    return _restored((counts, signatures, retries, max_task_retries), *others)


def _packed(found: Any) -> str:
    return base64.b85encode(zlib.compress(json.dumps(found, separators=(",", ":")).encode())).decode()
