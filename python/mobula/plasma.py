"""Objects in shared memory, for processes that have nothing else in common: the API of ``pyarrow.plasma``.

Programs that were written for Plasma, which Arrow has left behind, run with ``import mobula.plasma as plasma``. A store
is a process of its own. Any process of the same user connects to it, and reads objects where they lie, by ids of 20
bytes::

    import mobula.plasma as plasma

    with plasma.start_plasma_store(100_000_000) as (socket, process):
        client, other = plasma.connect(socket), plasma.connect(socket)
        object_id = client.put({"answer": 42})
        assert other.get(object_id) == {"answer": 42}

Objects outlive the process that made them. When the store is full, it deletes objects that no process uses, the least
recently used first. The commands ``python -m mobula.plasma -s SOCKET -m BYTES`` and ``mobula store`` run a store,
too; the second one moves objects to the disk instead.

Where pyarrow is installed, buffers are ``pyarrow.Buffer``, and the errors of this module are Arrow's, as Plasma's were.
Without it, buffers are objects with the buffer protocol, which ``memoryview`` and numpy read.

A Rust program reads and makes the same objects: the id is their name in the store (``Client::get_named``, ``publish``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mobula import _mobula

try:
    import pyarrow as _arrow

    _ArrowException: Any = _arrow.ArrowException
    PlasmaBuffer = _arrow.Buffer
except ImportError:
    _arrow = None
    _ArrowException = Exception
    PlasmaBuffer = _mobula.Memory

__all__ = [
    "ObjectID",
    "ObjectNotAvailable",
    "PlasmaBuffer",
    "PlasmaClient",
    "PlasmaObjectExists",
    "PlasmaObjectNonexistent",
    "PlasmaObjectNotFound",
    "PlasmaStoreFull",
    "connect",
    "start_plasma_store",
]

# In a class that has a method of the name.
_List = list

# How often a waiting thread looks whether a signal has come.
_SLICE = 0.02
# The default number of Plasma's attempts to connect, and the pause between two of them.
_RETRIES, _RETRY_PAUSE = 50, 0.1
# Plasma's way to say for ever, in milliseconds.
PLASMA_WAIT_TIMEOUT = 2**30


class PlasmaObjectExists(_ArrowException):  # type: ignore[misc]
    """There is an object with this id, or a client is making one."""


class PlasmaObjectNotFound(_ArrowException):  # type: ignore[misc]
    """There is no object with this id."""


PlasmaObjectNonexistent = PlasmaObjectNotFound


class PlasmaStoreFull(_ArrowException):  # type: ignore[misc]
    """The store has no room, and no object that it could delete: processes use them all."""


class ObjectNotAvailable:
    """What ``get`` returns in place of an object that was not there in time. The class itself is returned."""


class ObjectID:
    """The id of an object: 20 bytes.

    >>> from mobula.plasma import ObjectID
    >>> ObjectID(b"an id of 20 bytes..").binary()
    Traceback (most recent call last):
      ...
    ValueError: Object ID must by 20 bytes, is b'an id of 20 bytes..'
    >>> ObjectID(b"an id of 20 bytes...").binary()
    b'an id of 20 bytes...'
    """

    __slots__ = ("_id",)

    def __init__(self, object_id: bytes) -> None:
        if not isinstance(object_id, bytes) or len(object_id) != 20:
            # Programs may look for Plasma's words.
            raise ValueError(f"Object ID must by 20 bytes, is {object_id!r}")
        self._id = object_id

    @staticmethod
    def from_random() -> ObjectID:
        """Return an id that no other object has."""
        return ObjectID(os.urandom(20))

    def binary(self) -> bytes:
        """Return the id as bytes."""
        return self._id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectID) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"ObjectID({self._id.hex()})"

    def __reduce__(self) -> Any:
        return (ObjectID, (self._id,))


class PlasmaClient:
    """A connection to a store: what ``connect`` returns. Threads can share it."""

    def __init__(self, store_socket_name: str, connection: _mobula.PlasmaConnection) -> None:
        self.store_socket_name = store_socket_name
        self._open: _mobula.PlasmaConnection | None = connection
        # The objects that this client makes at the moment.
        self._drafts: dict[ObjectID, _mobula.PlasmaDraft] = {}

    @property
    def _connection(self) -> _mobula.PlasmaConnection:
        if self._open is None:
            raise OSError("the plasma client is disconnected: call mobula.plasma.connect() again")
        return self._open

    def disconnect(self) -> None:
        """End the connection. Buffers and values that were got stay; objects that were not sealed are gone."""
        self._drafts.clear()
        self._open = None

    def create(self, object_id: ObjectID, data_size: int, metadata: bytes = b"") -> Any:
        """Return a buffer of the store's memory, to write an object into. ``seal`` makes it visible, without a copy.

        After that, new views of the buffer are read-only. Do not write through an older view: other processes may
        read the object. The object is in use as long as the buffer lives.

        Raises:
            PlasmaObjectExists: There is an object with this id, or a client is making one.
            PlasmaStoreFull: The store has no room.
        """
        if data_size < 0:
            raise ValueError(f"data_size cannot be {data_size}: a number of bytes, at least 0")
        draft = self._connection.create(object_id.binary(), data_size, bytes(metadata))
        self._drafts[object_id] = draft
        return _buffer(draft)

    def seal(self, object_id: ObjectID) -> None:
        """Make an object visible that this client has created.

        Raises:
            PlasmaObjectNotFound: This client is not making an object with this id.
        """
        draft = self._drafts.pop(object_id, None)
        if draft is None:
            raise PlasmaObjectNotFound(f"{object_id!r} is not being created by this client: call create() first")
        self._connection.seal(draft)

    def create_and_seal(self, object_id: ObjectID, data: bytes, metadata: bytes = b"") -> None:
        """Store bytes. As ``put_raw_buffer`` with an id."""
        self.put_raw_buffer(data, object_id, metadata)

    def put_raw_buffer(
        self, value: Any, object_id: ObjectID | None = None, metadata: bytes = b"", memcopy_threads: int = 6
    ) -> ObjectID:
        """Copy a buffer into the store, and return the id. ``memcopy_threads`` has no effect.

        Raises:
            PlasmaObjectExists: There is an object with this id, or a client is making one.
            PlasmaStoreFull: The store has no room.
        """
        target = object_id or ObjectID.from_random()
        source = memoryview(value).cast("B")
        draft = self._connection.create(target.binary(), len(source), bytes(metadata))
        memoryview(draft)[:] = source
        self._connection.seal(draft)
        return target

    def put(
        self,
        value: Any,
        object_id: ObjectID | None = None,
        memcopy_threads: int = 6,
        serialization_context: None = None,
    ) -> ObjectID:
        """Copy a value into the store, and return its id. The memory of arrays is copied once.

        Any value goes that can be pickled; ``mobula.util.register_serializer`` takes the place of a
        ``serialization_context``. ``memcopy_threads`` has no effect.

        Raises:
            PlasmaObjectExists: There is an object with this id, or a client is making one.
            PlasmaStoreFull: The store has no room.
        """
        _check_context(serialization_context)
        target = object_id or ObjectID.from_random()
        self._connection.put(target.binary(), value, object_id is None)
        return target

    def get(
        self,
        object_ids: ObjectID | Sequence[ObjectID],
        timeout_ms: int = -1,
        serialization_context: None = None,
    ) -> Any:
        """Wait for the value of an id, or for those of a list of ids, and return them.

        Arrays are views of the store's memory: they are read-only, and keep the object where it is. A value that is not
        there after ``timeout_ms`` is ``ObjectNotAvailable``; -1 waits without end.
        """
        _check_context(serialization_context)
        if isinstance(object_ids, ObjectID):
            return self.get([object_ids], timeout_ms)[0]
        found = self._find(object_ids, timeout_ms)
        connection = self._connection
        return [ObjectNotAvailable if one is None else one.value(connection) for one in found]

    def get_buffers(self, object_ids: Sequence[ObjectID], timeout_ms: int = -1, with_meta: bool = False) -> _List[Any]:
        """Wait for objects, and return their data as read-only buffers, without a copy. ``None``: not there in time.

        With ``with_meta``, return pairs of the metadata, as bytes, and the buffer.
        """
        found = self._find(object_ids, timeout_ms)
        if not with_meta:
            return [None if one is None else _buffer(one.data()) for one in found]
        return [(None, None) if one is None else (bytes(one.metadata()), _buffer(one.data())) for one in found]

    def get_metadata(self, object_ids: Sequence[ObjectID], timeout_ms: int = -1) -> _List[Any]:
        """Wait for objects, and return their metadata as read-only buffers. ``None``: not there in time."""
        found = self._find(object_ids, timeout_ms)
        return [None if one is None else _buffer(one.metadata()) for one in found]

    def contains(self, object_id: ObjectID) -> bool:
        """Whether an object with this id is there, and sealed."""
        return self._connection.contains(object_id.binary())

    def wait(
        self, object_ids: Sequence[ObjectID], timeout: int = PLASMA_WAIT_TIMEOUT, num_returns: int = 1
    ) -> tuple[_List[ObjectID], _List[ObjectID]]:
        """Wait until so many objects are there, or ``timeout`` milliseconds have passed.

        Returns the ids of those that are there, at most ``num_returns``, and the other ids.
        """
        if not 0 <= num_returns <= len(object_ids):
            raise ValueError(
                f"num_returns cannot be {num_returns}: a number from 0 to {len(object_ids)}, that of the ids"
            )
        deadline = _deadline(timeout)
        while True:
            ready = [object_id for object_id in object_ids if self.contains(object_id)][:num_returns]
            left = deadline - time.monotonic()
            if len(ready) >= num_returns or left <= 0:
                return ready, [object_id for object_id in object_ids if object_id not in ready]
            missing = next(object_id for object_id in object_ids if object_id not in ready)
            self._connection.get(missing.binary(), min(left, _SLICE))

    def hash(self, object_id: ObjectID) -> bytes:
        """Return a digest of 8 bytes, of the data and the metadata.

        Raises:
            PlasmaObjectNotFound: There is no such object.
        """
        found = self._connection.get(object_id.binary(), 0)
        if found is None:
            raise PlasmaObjectNotFound(f"{object_id!r} does not exist in the plasma store")
        data = memoryview(found.data())
        digest = hashlib.blake2b(len(data).to_bytes(8), digest_size=8)
        digest.update(data)
        digest.update(found.metadata())
        return digest.digest()

    def delete(self, object_ids: Iterable[ObjectID]) -> None:
        """Delete objects. A process that uses one keeps it; no other finds it. An id without an object is no error."""
        for object_id in object_ids:
            self._connection.delete(object_id.binary())

    def evict(self, num_bytes: int) -> int:
        """Delete objects that are not in use, the least recently used first, until so many bytes are free.

        Returns the number of bytes, which is smaller where all others are in use.
        """
        return self._connection.evict(max(num_bytes, 0))

    def list(self) -> dict[ObjectID, dict[str, Any]]:
        """Return all objects, each with what is known of it.

        ``data_size``, ``metadata_size``, ``ref_count`` (clients that use it) and ``state`` (``"created"`` or
        ``"sealed"``). The store does not know ``create_time`` and ``construct_duration``, which are -1, nor the sizes
        of an object that is being made, which are 0.
        """
        return {
            ObjectID(object_id): {
                "data_size": data_size,
                "metadata_size": metadata_size,
                "ref_count": holders,
                "create_time": -1,
                "construct_duration": -1,
                "state": "sealed" if is_sealed else "created",
            }
            for object_id, data_size, metadata_size, holders, is_sealed in self._connection.list()
        }

    def subscribe(self) -> None:
        """From now on, note each object that any client seals, and each that is deleted or evicted."""
        self._connection.subscribe()

    def get_next_notification(self) -> tuple[ObjectID, int, int]:
        """Wait for the next notification: an id, and the sizes of its data and metadata, or -1 and -1: it is gone.

        Raises:
            ValueError: ``subscribe`` was not called.
        """
        while True:
            found = self._connection.next_notification(_SLICE)
            if found is not None:
                object_id, data_size, metadata_size = found
                return ObjectID(object_id), data_size, metadata_size

    def store_capacity(self) -> int:
        """Return the bytes that all objects may take together."""
        return self._connection.capacity()

    def set_client_options(self, client_name: str, limit_output_memory: int) -> None:
        """Have no effect: the store treats all clients alike."""

    def debug_string(self) -> str:
        """Return a text about the store, for people."""
        objects = self.list()
        used = sum(info["data_size"] + info["metadata_size"] for info in objects.values())
        return f"{len(objects)} objects of {used} bytes; the store has room for {self.store_capacity()} bytes"

    def _find(self, object_ids: Sequence[ObjectID], timeout_ms: int) -> _List[_mobula.PlasmaObject | None]:
        """The objects of these ids; ``None`` for one that is not there in time."""
        deadline = _deadline(timeout_ms)
        found = []
        for object_id in object_ids:
            while True:
                left = max(deadline - time.monotonic(), 0)
                one = self._connection.get(object_id.binary(), min(left, _SLICE))
                if one is not None or left <= _SLICE:
                    break
            found.append(one)
        return found


def connect(store_socket_name: str | os.PathLike[str], num_retries: int = -1) -> PlasmaClient:
    """Connect to the store that listens at this socket.

    Args:
        store_socket_name: The path of the socket.
        num_retries: How many times to try, a tenth of a second apart; -1: 50 times.

    Raises:
        OSError: No store listens there.
    """
    path, tries = os.fspath(store_socket_name), _RETRIES if num_retries < 0 else max(num_retries, 1)
    while True:
        try:
            return PlasmaClient(path, _mobula.PlasmaConnection(path))
        except OSError:
            tries -= 1
            if not tries:
                raise
            time.sleep(_RETRY_PAUSE)


@contextlib.contextmanager
def start_plasma_store(
    plasma_store_memory: int,
    use_valgrind: bool = False,
    use_profiler: bool = False,
    plasma_directory: str | None = None,
    use_hugepages: bool = False,
    external_store: str | None = None,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a store with room for so many bytes of objects. Gives the path of its socket, and its process.

    The store ends with the block. Objects that are in use stay readable.

    Raises:
        ValueError: An option that this store does not have.
        RuntimeError: The store does not start.
    """
    for name, value in [
        ("use_valgrind", use_valgrind),
        ("use_profiler", use_profiler),
        ("plasma_directory", plasma_directory),
        ("use_hugepages", use_hugepages),
        ("external_store", external_store),
    ]:
        if value:
            raise ValueError(f"start_plasma_store cannot do {name}={value!r}: leave the option out")
    directory = tempfile.mkdtemp(prefix="mobula-plasma-")
    try:
        socket = os.path.join(directory, "plasma.sock")
        process = subprocess.Popen(
            _store_command(socket, plasma_store_memory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            with process.stdout as said:
                if said.readline() != b"ready\n":
                    raise RuntimeError(f"plasma_store exited unexpectedly with code {process.wait()}")
            yield socket, process
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# The store is this interpreter, with the extension module alone: it runs no other Python code.
_STORE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_mobula", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.run_store(sys.argv[2], int(sys.argv[3]))
"""


def _store_command(socket: str, memory: int) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _STORE, _mobula.__file__, socket, str(memory)]


def _buffer(memory: Any) -> Any:
    return memory if _arrow is None else _arrow.py_buffer(memory)


def _deadline(timeout_ms: int) -> float:
    return float("inf") if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000


def _check_context(context: object) -> None:
    if context is not None:
        raise TypeError(
            "serialization_context is not supported: values are pickled. Say how values of a class are written by "
            "mobula.util.register_serializer()."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a store until SIGTERM or Ctrl-C: ``python -m mobula.plasma -s /tmp/plasma -m 1000000000``."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m mobula.plasma", description="Run a plasma store.")
    parser.add_argument("-s", dest="socket", required=True, help="the path of the socket to listen at")
    parser.add_argument("-m", dest="memory", required=True, type=int, help="how many bytes all objects may take")
    options = parser.parse_args(arguments)
    # Another interpreter: this one may have threads, which would take the signals.
    command = _store_command(options.socket, options.memory)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
