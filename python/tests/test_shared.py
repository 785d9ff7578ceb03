"""Memory that processes share by themselves. If this fails, workers of a data loader have copies, or other values."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest

import mobula
from mobula.multiprocessing import Process, SharedArray


def inodes(places: list[str]) -> set[int]:
    """The files in memory that a process maps."""
    with open("/proc/self/maps") as maps:
        return {int(line.split()[4]) for line in maps if any(place in line for place in places)}


def read(dataset: Any, index: int, out: Any) -> None:
    """What a worker of a loader does."""
    item = dataset[index]
    out.send((len(dataset), item["x"].sum(), item["y"], item["x"].flags.writeable, inodes(["mobula-shared"])))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_a_loader_read_one_copy(method: str) -> None:
    dataset = mobula.shared([{"x": np.full(10_000, i), "y": f"label {i}"} for i in range(10)])
    here = inodes(["mobula-shared"])
    context = multiprocessing.get_context(method)
    for index in (0, 9):
        ours, theirs = context.Pipe()
        process = context.Process(target=read, args=(dataset, index, theirs))
        process.start()
        length, total, label, is_writeable, there = ours.recv()
        process.join()
        assert (length, total, label, is_writeable) == (10, 10_000 * index, f"label {index}", False)
        # It maps the same memory, and has no other.
        assert there and there <= here


def test_a_shared_data_set_is_a_sequence() -> None:
    dataset = mobula.shared([(np.arange(3), i) for i in range(4)])
    assert len(dataset) == 4
    assert [y for _, y in dataset] == [0, 1, 2, 3]
    assert [y for _, y in dataset[1:3]] == [1, 2]
    assert dataset[-1][1] == 3
    with pytest.raises(IndexError):
        dataset[4]
    assert len(mobula.shared([])) == 0
    with pytest.raises(TypeError, match="has a length"):
        mobula.shared(iter([1]))


@pytest.mark.usefixtures("fresh")
def test_a_shared_data_set_goes_to_calls() -> None:
    dataset, array = mobula.shared([np.arange(1000), "text"]), mobula.shared(np.arange(10_000))
    assert isinstance(array, np.ndarray) and not array.flags.writeable

    @mobula.remote
    def look(dataset: Any, array: Any) -> Any:
        return int(dataset[0].sum()), dataset[1], int(array.sum()), type(array).__name__

    mobula.init(num_cpus=2)
    try:
        assert mobula.get(look.remote(dataset, array)) == (499500, "text", 49995000, "SharedArray")
    finally:
        mobula.shutdown()


@pytest.mark.usefixtures("fresh")
def test_all_processes_write_a_shared_array() -> None:
    array = SharedArray((4, 1000), "i8")
    assert array.sum() == 0

    @mobula.remote
    def fill(row: Any, value: int) -> None:
        row[:] = value

    mobula.init(num_cpus=2)
    try:
        # A part of an array is the same memory.
        mobula.get([fill.remote(array[i, ::2], i + 1) for i in range(4)])
    finally:
        mobula.shutdown()
    assert array[:, 0].tolist() == [1, 2, 3, 4] and array[:, 1].tolist() == [0, 0, 0, 0]
    doubled = array * 2
    assert type(doubled) is np.ndarray and doubled[3, 0] == 8
    copy = array.copy()
    copy[0, 0] = 99
    assert array[0, 0] == 1
    with pytest.raises(TypeError, match="objects"):
        SharedArray(3, object)


def test_the_memory_is_freed_with_its_last_array() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        array = SharedArray(100)
        view = array[10:]
        del array
        view[0] = 1.0
    del view
    assert len(os.listdir("/proc/self/fd")) == before


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fail() -> None:
    raise ValueError("in the process")


@pytest.mark.usefixtures("session")
def test_a_process_has_an_exit_code() -> None:
    array = SharedArray(3)

    def work(place: int, *, value: float) -> None:
        array[place] = value

    process = Process(target=work, args=(1,), kwargs={"value": 5.0}, name="worker")
    assert process.pid is None and process.exitcode is None and not process.is_alive()
    process.start()
    process.join()
    assert (process.exitcode, process.is_alive(), process.name) == (0, False, "worker")
    assert array.tolist() == [0.0, 5.0, 0.0] and process.pid != os.getpid()

    for target, code in ((fail, 1), (lambda: exit(3), 3)):
        process = Process(target=target)
        process.start()
        process.join()
        assert process.exitcode == code


@pytest.mark.usefixtures("session")
def test_a_process_is_ended() -> None:
    for end, code in ((Process.terminate, -15), (Process.kill, -9)):
        process = Process(target=time.sleep, args=(600,))
        process.start()
        process.join(timeout=0.01)
        assert process.is_alive()
        end(process)
        process.join()
        assert process.exitcode == code
    with pytest.raises(AssertionError):
        Process().join()


class Counts(Process):
    """A process of its own class."""

    def __init__(self, array: Any) -> None:
        super().__init__()
        self.array = array

    def run(self) -> None:
        self.array[0] += 1


@pytest.mark.usefixtures("session")
def test_a_class_of_processes() -> None:
    array = SharedArray(1)
    processes = [Counts(array) for _ in range(2)]
    for process in processes:
        process.start()
        process.join()
    assert array[0] == 2


def own_bytes() -> int:
    """The memory of this process that is no file. What it has in common with others counts in parts."""
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss_Anon:"))


class Observed:
    """A data set whose items say which process read them, and which memory it has."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[float, int, int, set[int]]:
        item = self.dataset[index]
        return float(item.sum()), os.getpid(), own_bytes(), inodes(["mobula-shared"])


def torch_data() -> Any:
    return pytest.importorskip("torch.utils.data", reason="PyTorch is not installed: `pip install torch`")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_of_pytorch_have_no_copy(method: str) -> None:
    loader_class, count, bytes_of_item = torch_data().DataLoader, 64, 1 << 20
    items = [np.full(bytes_of_item // 8, float(i)) for i in range(count)]
    whole = np.stack(items)
    for dataset in (mobula.shared(items), mobula.shared(whole)):
        # It is what a spawned worker gets, and a forked one has all that this process has.
        assert len(ForkingPickler.dumps(dataset)) < bytes_of_item // 8
        here = inodes(["mobula-shared"])
        loader = loader_class(Observed(dataset), batch_size=None, num_workers=2, multiprocessing_context=method)
        seen = list(loader)
        assert [total for total, *_ in seen] == [float(item.sum()) for item in items]
        pids = {pid for _, pid, _, _ in seen}
        assert len(pids) == 2 and os.getpid() not in pids
        for process in pids:
            at_first, *_, at_last = [memory for _, pid, memory, _ in seen if pid == process]
            # It has read half of the data set in between.
            assert at_last - at_first < count * bytes_of_item // 8
        assert all(there and there <= here for *_, there in seen)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loader_of_pytorch_makes_batches(method: str) -> None:
    loader_class = torch_data().DataLoader
    import torch

    dataset = mobula.shared([{"x": np.full(1000, i, np.float32), "y": i} for i in range(40)])
    loader = loader_class(dataset, batch_size=8, num_workers=2, multiprocessing_context=method)
    for _ in range(2):
        batches = list(loader)
        assert [tuple(batch["x"].shape) for batch in batches] == [(8, 1000)] * 5
        assert torch.equal(torch.cat([batch["y"] for batch in batches]), torch.arange(40))
        assert all(torch.equal(batch["x"][:, 0], batch["y"].float()) for batch in batches)
    array = mobula.shared(np.arange(40, dtype=np.float32).reshape(20, 2))
    loader = loader_class(array, batch_size=5, num_workers=2, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), torch.arange(40).reshape(20, 2).float())
