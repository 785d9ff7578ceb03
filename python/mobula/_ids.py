"""The ids of calls, actors, processes and machines: bytes, with classes and names as in Ray."""

from __future__ import annotations

import builtins
import os
from typing import Self


class BaseID:
    """Bytes that identify something."""

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
    def from_binary(cls, binary: bytes) -> Self:
        """Return the id with these bytes."""
        return cls(binary)

    @classmethod
    def from_random(cls) -> Self:
        """Return a random id."""
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls) -> Self:
        """Return the id that stands for nothing."""
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls) -> int:
        """Return the number of bytes of such an id."""
        return cls.SIZE

    def hex(self) -> str:
        """Return the hexadecimal digits."""
        return self._bytes.hex()

    def binary(self) -> bytes:
        """Return the bytes."""
        return self._bytes

    def is_nil(self) -> bool:
        """Whether this is the id that stands for nothing."""
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

    def job_id(self) -> JobID:
        """Return the id of the driver of this process."""
        return of_this_driver()


class ActorID(BaseID):
    """The id of an actor."""

    SIZE = 16
    __slots__ = ()

    @property
    def job_id(self) -> JobID:
        """The id of the driver of this process."""
        return of_this_driver()


class JobID(BaseID):
    """The id of a driver."""

    SIZE = 4
    __slots__ = ()

    @classmethod
    def from_int(cls, number: int) -> Self:
        """Return the id with this number."""
        return cls(number.to_bytes(cls.SIZE, "big"))

    def int(self) -> builtins.int:
        """Return the number."""
        return builtins.int.from_bytes(self._bytes, "big")


class NodeID(UniqueID):
    """The id of a machine."""

    __slots__ = ()


class WorkerID(UniqueID):
    """The id of a process of a session."""

    __slots__ = ()


def of_task(digits: str | None) -> TaskID:
    """Return the id of the call with these digits in the core; nil for ``None``."""
    return TaskID.nil() if digits is None else TaskID.from_hex(digits.ljust(2 * TaskID.SIZE, "0"))


def of_actor(digits: str) -> ActorID:
    """Return the id of the actor with these digits in the core."""
    return ActorID.from_hex(digits.rjust(2 * ActorID.SIZE, "0"))


def of_process(digits: str) -> WorkerID:
    """Return the id of the process with these digits in the core."""
    return WorkerID.from_hex(digits.rjust(2 * WorkerID.SIZE, "0"))


def of_driver(pid: int) -> JobID:
    """Return the id of the driver with this pid."""
    return JobID(pid.to_bytes(JobID.SIZE, "big"))


def of_this_driver() -> JobID:
    """Return the id of the driver, as far as this process knows it."""
    from mobula import _mobula

    return of_driver(os.getppid() if _mobula.is_worker() else os.getpid())


def of_machine() -> NodeID:
    """Return the id of this machine. It changes when the machine restarts."""
    # Workers import this file at their start, and seldom need this id.
    import hashlib

    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            started = file.read()
    except OSError:
        started = b""
    return NodeID(hashlib.sha224(os.uname().nodename.encode() + started).digest())
