"""Memory that all processes of a machine can map: what is pickled of it is where it is, and no copy."""

from __future__ import annotations

import mmap
import os
from typing import Any


class Memory:
    """Some bytes of shared memory. They are freed when no process has them any more.

    A process that unpickles the object maps the same memory. It finds it by the process that pickled the object, which
    must live until then. A forked process has it already.
    """

    def __init__(self, size: int) -> None:
        descriptor = os.memfd_create("mobula-shared", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, max(size, 1))
        self._map(descriptor, size)

    def _map(self, descriptor: int, size: int) -> None:
        self._descriptor, self.size = descriptor, size
        self._map_of_it = mmap.mmap(descriptor, max(size, 1), mmap.MAP_SHARED)

    @property
    def buffer(self) -> memoryview:
        """The bytes, which can be written."""
        return memoryview(self._map_of_it)[: self.size]

    def __reduce__(self) -> Any:
        return (_found, (os.getpid(), self._descriptor, self.size))

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


def _found(pid: int, descriptor: int, size: int) -> Memory:
    """Map the memory of another process."""
    memory = Memory.__new__(Memory)
    try:
        found = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeError(
            f"the shared memory of process {pid} cannot be mapped ({error}): the process that passes it on must live "
            "until the other one has it"
        ) from error
    memory._map(found, size)
    return memory
