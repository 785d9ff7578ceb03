"""The ids of calls, actors, processes and machines: as Ray has them, bytes with a name."""

from __future__ import annotations

import os
from typing import Self


class BaseID:
    """Some bytes that name something."""

    SIZE = 28
    __slots__ = ("_bytes",)

    def __init__(self, binary: bytes) -> None:
        if len(binary) != self.SIZE:
            raise ValueError(f"a {type(self).__name__} has {self.SIZE} bytes, and not {len(binary)}")
        self._bytes = bytes(binary)

    @classmethod
    def from_hex(cls, digits: str) -> Self:
        """Return the id with these hexadecimal digits."""
        return cls(bytes.fromhex(digits))

    @classmethod
    def from_random(cls) -> Self:
        """Return an id that nothing has."""
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls) -> Self:
        """Return the id of nothing."""
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls) -> int:
        """Return how many bytes such an id has."""
        return cls.SIZE

    def hex(self) -> str:
        """Return the hexadecimal digits."""
        return self._bytes.hex()

    def binary(self) -> bytes:
        """Return the bytes."""
        return self._bytes

    def is_nil(self) -> bool:
        """Whether it is the id of nothing."""
        return self._bytes == b"\xff" * self.SIZE

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._bytes == self._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return (type(self), (self._bytes,))


class UniqueID(BaseID):
    """An id of any kind."""

    __slots__ = ()


class TaskID(BaseID):
    """The id of a call: the same in all its attempts."""

    SIZE = 24
    __slots__ = ()


class ActorID(BaseID):
    """The id of an actor."""

    SIZE = 16
    __slots__ = ()


class JobID(BaseID):
    """The id of a driver."""

    SIZE = 4
    __slots__ = ()


class NodeID(UniqueID):
    """The id of a machine."""

    __slots__ = ()


class WorkerID(UniqueID):
    """The id of a process of a session."""

    __slots__ = ()


def of_task(digits: str | None) -> TaskID:
    """The id of a call, of which the core has these digits; nil for none."""
    return TaskID.nil() if digits is None else TaskID.from_hex(digits.ljust(2 * TaskID.SIZE, "0"))


def of_actor(digits: str) -> ActorID:
    """The id of an actor, of which the core has these digits."""
    return ActorID.from_hex(digits.rjust(2 * ActorID.SIZE, "0"))


def of_process(digits: str) -> WorkerID:
    """The id of a process, of which the core has these digits."""
    return WorkerID.from_hex(digits.rjust(2 * WorkerID.SIZE, "0"))


def of_driver(pid: int) -> JobID:
    """The id of a driver with this number of a process."""
    return JobID(pid.to_bytes(JobID.SIZE, "big"))


def of_machine() -> NodeID:
    """The id of this machine, since it was started."""
    # Workers import this file at their start, and seldom need this id.
    import hashlib

    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            started = file.read()
    except OSError:
        started = b""
    return NodeID(hashlib.sha224(os.uname().nodename.encode() + started).digest())
