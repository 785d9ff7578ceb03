"""``mobula.plasma``: programs that were written for Arrow's Plasma would read wrong bytes, wait for ever, or find a
store that neither keeps nor frees what Plasma kept and freed."""

from __future__ import annotations

import doctest
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mobula import plasma
from mobula.plasma import ObjectID, PlasmaClient

MEGABYTE = 10**6
STORE_BYTES = 100 * MEGABYTE


@pytest.fixture
def store() -> Iterator[str]:
    with plasma.start_plasma_store(STORE_BYTES) as (socket, process):
        yield socket
        assert process.poll() is None, "the store has ended"


@pytest.fixture
def client(store: str) -> PlasmaClient:
    return plasma.connect(store, 1)


@pytest.fixture
def other(store: str) -> PlasmaClient:
    return plasma.connect(store, 1)


def create(client: PlasmaClient, data: bytes, metadata: bytes = b"") -> ObjectID:
    object_id = ObjectID.from_random()
    memoryview(client.create(object_id, len(data), metadata)).cast("B")[:] = data
    client.seal(object_id)
    return object_id


def run(program: str, *arguments: str) -> str:
    """Run a program in another process, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_docstrings() -> None:
    assert doctest.testmod(plasma).failed == 0


def test_an_id_is_20_bytes() -> None:
    one, same, other = ObjectID(20 * b"0"), ObjectID(20 * b"0"), ObjectID(19 * b"0" + b"1")
    assert one == same and hash(one) == hash(same) and one != other and one != "text"
    assert one.binary() == 20 * b"0" and repr(one) == f"ObjectID({20 * '30'})"
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({ObjectID.from_random() for _ in range(100)}) == 100
    for wrong in ("text", b"short", 20 * "0"):
        with pytest.raises(ValueError, match="20 bytes"):
            ObjectID(wrong)  # type: ignore[arg-type]


def test_no_store_is_an_os_error(tmp_path: Any) -> None:
    with pytest.raises(OSError, match="no store"):
        plasma.connect(str(tmp_path / "nothing"), 1)


def test_values_are_read_in_another_process(store: str, client: PlasmaClient) -> None:
    values = [None, 7, "text", [1.5, {"a": (True, b"bytes")}], np.arange(1000).reshape(10, 100)]
    ids = [client.put(value) for value in values]
    program = """
import sys
import numpy as np
from mobula import plasma
client = plasma.connect(sys.argv[1])
values = client.get([plasma.ObjectID(bytes.fromhex(text)) for text in sys.argv[2:]])
assert values[:4] == [None, 7, "text", [1.5, {"a": (True, b"bytes")}]], values
assert (values[4] == np.arange(1000).reshape(10, 100)).all() and not values[4].flags.writeable
print(client.put(values[4] * 2).binary().hex())
"""
    made = run(program, store, *(object_id.binary().hex() for object_id in ids))
    # That process has ended, and its object is there.
    twice = client.get(ObjectID(bytes.fromhex(made.strip())), timeout_ms=0)
    assert (twice == values[4] * 2).all()


def test_a_value_is_a_view_that_keeps_its_object(client: PlasmaClient, other: PlasmaClient) -> None:
    array = np.arange(100_000)
    object_id = client.put(array)
    view = other.get(object_id)
    again = other.get(object_id)
    assert view.__array_interface__["data"][0] == again.__array_interface__["data"][0], "it was copied"
    assert other.evict(10 * MEGABYTE) == 0, "the object is in use"
    client.delete([object_id])
    other.disconnect()
    del again
    gc.collect()
    for _ in range(50):
        client.put(np.zeros(MEGABYTE))  # More than the store has room for.
    assert (view == array).all()


def test_a_missing_value_is_not_available(client: PlasmaClient) -> None:
    here, missing = client.put(1), ObjectID.from_random()
    assert client.get([here, missing], timeout_ms=30) == [1, plasma.ObjectNotAvailable]
    assert client.get(missing, 0) is plasma.ObjectNotAvailable
    assert client.get_buffers([missing], 0) == client.get_metadata([missing], 0) == [None]
    assert client.get_buffers([missing], 0, with_meta=True) == [(None, None)]


def test_get_waits_for_the_seal(client: PlasmaClient, other: PlasmaClient) -> None:
    object_id = ObjectID.from_random()
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.extend(other.get_buffers([object_id])))
    waiting.start()
    buffer = client.create(object_id, 3)
    assert other.get_buffers([object_id], timeout_ms=50) == [None], "it was read before it was sealed"
    memoryview(buffer).cast("B")[:] = b"abc"
    client.seal(object_id)
    waiting.join(60)
    assert bytes(found[0]) == b"abc"


def test_create_and_seal_write_in_place(client: PlasmaClient, other: PlasmaClient) -> None:
    object_id = ObjectID.from_random()
    buffer = client.create(object_id, 80, metadata=b"about it")
    array = np.frombuffer(buffer, dtype=np.int64)
    array[:] = range(10)
    assert not other.contains(object_id)
    client.seal(object_id)
    assert other.contains(object_id)
    [read] = other.get_buffers([object_id])
    assert np.frombuffer(read, dtype=np.int64).tolist() == list(range(10))
    assert bytes(other.get_metadata([object_id])[0]) == b"about it"
    [(metadata, data)] = other.get_buffers([object_id], with_meta=True)
    assert (metadata, bytes(data)) == (b"about it", array.tobytes())
    with pytest.raises(TypeError):
        memoryview(read)[0] = 1
    with pytest.raises(plasma.PlasmaObjectNotFound):
        client.seal(object_id)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 5000])
def test_each_size_of_data_and_metadata(client: PlasmaClient, other: PlasmaClient, size: int) -> None:
    data, metadata = os.urandom(size), os.urandom(size // 2)
    object_id = create(client, data, metadata)
    assert bytes(memoryview(other.get_buffers([object_id])[0])) == data
    assert bytes(memoryview(other.get_metadata([object_id])[0])) == metadata
    raw = other.put_raw_buffer(np.frombuffer(data + b"x", dtype=np.uint8), metadata=metadata)
    assert bytes(client.get_buffers([raw])[0]) == data + b"x"


def test_an_id_is_given_once(client: PlasmaClient, other: PlasmaClient) -> None:
    object_id = ObjectID.from_random()
    buffer = client.create(object_id, 10)
    operations: list[Callable[[], Any]] = [
        lambda: client.create(object_id, 10),
        lambda: other.create(object_id, 10),
        lambda: other.put(1, object_id),
        lambda: other.put_raw_buffer(b"raw", object_id),
    ]
    for operation in operations:
        with pytest.raises(plasma.PlasmaObjectExists):
            operation()
    client.seal(object_id)
    for operation in operations:
        with pytest.raises(plasma.PlasmaObjectExists):
            operation()
    assert len(buffer) == 10
    other.delete([object_id])
    assert other.put("again", object_id) == object_id
    assert client.get(object_id) == "again"


def test_what_a_dead_process_was_creating_is_gone(store: str, client: PlasmaClient) -> None:
    object_id = ObjectID.from_random()
    program = """
import os, sys
from mobula import plasma
client = plasma.connect(sys.argv[1])
buffer = client.create(plasma.ObjectID(bytes.fromhex(sys.argv[2])), 10)
assert client.list()[plasma.ObjectID(bytes.fromhex(sys.argv[2]))]["state"] == "created"
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", program, store, object_id.binary().hex()], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    # The store notices the death, soon or at once.
    for _ in range(6000):
        try:
            client.put("mine", object_id)
            break
        except plasma.PlasmaObjectExists:
            threading.Event().wait(0.01)
    assert client.get(object_id, 0) == "mine"


def test_a_buffer_that_is_dropped_unsealed_gives_its_id_back(store: str, client: PlasmaClient) -> None:
    object_id = ObjectID.from_random()
    other = plasma.connect(store)
    buffer = other.create(object_id, 10)
    other.disconnect()
    del buffer, other
    gc.collect()
    assert client.put(1, object_id) == object_id


def test_delete_and_contains(client: PlasmaClient, other: PlasmaClient) -> None:
    ids = [create(client, b"data") for _ in range(10)]
    assert all(other.contains(object_id) for object_id in ids)
    [kept] = other.get_buffers(ids[:1])
    other.delete([*ids, ObjectID.from_random()])
    assert not any(client.contains(object_id) for object_id in ids)
    assert bytes(kept) == b"data"


def test_wait(client: PlasmaClient, other: PlasmaClient) -> None:
    ids = [ObjectID.from_random() for _ in range(3)]
    assert client.wait(ids, timeout=0) == ([], ids)
    other.put(1, ids[1])
    assert client.wait(ids) == ([ids[1]], [ids[0], ids[2]])
    late = threading.Timer(0.05, lambda: other.put(2, ids[2]))
    late.start()
    assert client.wait(ids, timeout=60_000, num_returns=2) == ([ids[1], ids[2]], [ids[0]])
    with pytest.raises(ValueError, match="num_returns"):
        client.wait(ids, num_returns=4)


def test_a_full_store_evicts_what_nobody_uses(client: PlasmaClient, other: PlasmaClient) -> None:
    used = client.create(ObjectID.from_random(), STORE_BYTES // 2)
    unused = [create(client, bytes(10 * MEGABYTE)) for _ in range(4)]
    large = other.create(ObjectID.from_random(), 25 * MEGABYTE)
    assert not client.contains(unused[0]), "the least recently used one goes first"
    for size in (STORE_BYTES // 2, STORE_BYTES + 1):
        with pytest.raises(plasma.PlasmaStoreFull):
            other.create(ObjectID.from_random(), size)
    assert len(used) == STORE_BYTES // 2 and len(large) == 25 * MEGABYTE
    assert client.store_capacity() >= STORE_BYTES


def test_evict_takes_the_least_recently_used(client: PlasmaClient) -> None:
    first = create(client, bytes(1000), b"12345")
    assert client.evict(1) == 1005 and not client.contains(first)
    used, second, third = create(client, bytes(999)), create(client, bytes(998)), create(client, bytes(997))
    [buffer] = client.get_buffers([used])
    client.get_buffers([second])
    assert client.evict(1) == 997
    assert client.evict(10_000) == 998, "an object in use stays"
    assert client.contains(used) and not client.contains(third)
    del buffer
    assert client.evict(1) == 999
    assert client.list() == {}


def test_the_list_says_what_is_known(client: PlasmaClient, other: PlasmaClient) -> None:
    making, sealed = ObjectID.from_random(), create(client, bytes(100), b"meta")
    buffer = client.create(making, 10)
    unused, used = client.list(), other.get_buffers([sealed])
    assert unused[sealed]["ref_count"] == 0 and client.list()[sealed]["ref_count"] == 1
    assert (unused[sealed]["data_size"], unused[sealed]["metadata_size"]) == (100, 4)
    assert {info["state"] for info in unused.values()} == {"sealed", "created"} and unused.keys() == {sealed, making}
    assert len(buffer) == 10 and len(used) == 1
    assert client.debug_string().startswith("2 objects of 104 bytes")


def test_notifications_come_for_each_seal_and_each_end(client: PlasmaClient, other: PlasmaClient) -> None:
    with pytest.raises(ValueError, match="subscribe"):
        client.get_next_notification()
    client.subscribe()
    expected = []
    for number in range(200):
        object_id = create(other, bytes(number), bytes(number % 3))
        expected.append((object_id, number, number % 3))
    assert [client.get_next_notification() for _ in expected] == expected
    value = client.put("value")
    object_id, data_size, metadata_size = client.get_next_notification()
    assert (object_id, metadata_size) == (value, 0) and data_size > 0
    # One request removes them all.
    assert other.evict(10 * MEGABYTE) > 0
    gone = [client.get_next_notification() for _ in range(201)]
    assert {object_id for object_id, *_ in gone} == {object_id for object_id, *_ in expected} | {value}
    assert {sizes for _, *sizes in map(tuple, gone) for sizes in [tuple(sizes)]} == {(-1, -1)}
    other.delete([client.put(1)])
    assert client.get_next_notification()[1] > 0
    assert client.get_next_notification()[1:] == (-1, -1)


def test_equal_objects_have_equal_hashes(client: PlasmaClient, other: PlasmaClient) -> None:
    def digest(data: bytes, metadata: bytes = b"") -> bytes:
        return other.hash(create(client, data, metadata))

    assert digest(b"data", b"meta") == digest(b"data", b"meta")
    different = [
        digest(data, meta) for data, meta in [(b"", b""), (b"ab", b""), (b"a", b"b"), (b"", b"ab"), (b"b", b"")]
    ]
    assert len(set(different)) == 5 and {len(one) for one in different} == {8}
    with pytest.raises(plasma.PlasmaObjectNotFound):
        client.hash(ObjectID.from_random())


def test_what_cannot_be_a_plasma_object(client: PlasmaClient) -> None:
    with pytest.raises(ValueError, match="get_buffers"):
        client.get(create(client, b"raw bytes"))
    with pytest.raises(TypeError, match="serialization_context"):
        client.put(1, serialization_context=object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data_size"):
        client.create(ObjectID.from_random(), -1)
    client.disconnect()
    with pytest.raises(OSError, match="disconnected"):
        client.put(1)


def test_a_reference_of_a_session_is_refused(client: PlasmaClient) -> None:
    import mobula

    with mobula.init(num_cpus=1), pytest.raises(TypeError, match="references"):
        client.put([mobula.put(1)])


def test_threads_share_a_client(client: PlasmaClient) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(100):
                array = np.full(1000, number * 1000 + count)
                assert (client.get(client.put(array)) == array).all()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed, failed


def test_a_store_on_the_command_line(tmp_path: Any) -> None:
    socket = str(tmp_path / "plasma")
    command = [sys.executable, "-m", "mobula.plasma", "-s", socket, "-m", str(STORE_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        client = plasma.connect(socket)
        assert client.get(client.put("here")) == "here"
        client.disconnect()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_store_that_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="exited"), plasma.start_plasma_store(0):
        pass
    with pytest.raises(ValueError, match="use_valgrind"), plasma.start_plasma_store(MEGABYTE, use_valgrind=True):
        pass


class TestArrow:
    """Programs of pyarrow write and read streams in the buffers."""

    @pytest.fixture(autouse=True)
    def arrow(self) -> Any:
        return pytest.importorskip("pyarrow")

    def test_errors_are_those_of_arrow(self, client: PlasmaClient, arrow: Any) -> None:
        object_id = client.put(1)
        with pytest.raises(arrow.lib.ArrowException):
            client.put(1, object_id)
        assert isinstance(client.create(ObjectID.from_random(), 1), plasma.PlasmaBuffer)

    def test_a_batch_is_written_into_a_buffer(self, client: PlasmaClient, other: PlasmaClient, arrow: Any) -> None:
        batch = arrow.record_batch({"number": [1, 2, 3], "text": ["a", None, "c"]})
        size = arrow.MockOutputStream()
        with arrow.ipc.new_stream(size, batch.schema) as writer:
            writer.write_batch(batch)
        object_id = ObjectID.from_random()
        buffer = client.create(object_id, size.size())
        with arrow.ipc.new_stream(arrow.FixedSizeBufferWriter(buffer), batch.schema) as writer:
            writer.write_batch(batch)
        client.seal(object_id)
        del buffer
        [data] = other.get_buffers([object_id])
        read = arrow.ipc.open_stream(arrow.BufferReader(data)).read_next_batch()
        del data
        gc.collect()
        assert read.equals(batch)

    def test_a_table_is_read_where_it_lies(self, client: PlasmaClient, other: PlasmaClient, arrow: Any) -> None:
        table = arrow.table({"number": np.arange(100_000)})
        object_id = client.put(table)
        one, again = other.get(object_id), other.get(object_id)
        assert one.equals(table)
        addresses = [read.column(0).chunk(0).buffers()[1].address for read in (one, again)]
        assert addresses[0] == addresses[1], "it was copied"
