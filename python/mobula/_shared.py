"""``mobula.shared``: a data set that all workers of a loader read in one place."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from mobula._memory import Memory

# Buffers begin at multiples of this, as those of numpy do.
_ALIGNMENT = 64


class Shared(Sequence[Any]):
    """A data set in shared memory. Its items are made of it when they are read; their arrays are views of it."""

    def __init__(self, items: Any) -> None:
        parts: list[Any] = []
        # For each item: the place and the length of its pickle, and of each of its buffers.
        self._places: list[tuple[tuple[int, int], ...]] = []
        end = 0
        for index in range(len(items)):
            buffers: list[pickle.PickleBuffer] = []
            whole = [_pickled(items[index], buffers), *(buffer.raw() for buffer in buffers)]
            places = []
            for part in whole:
                places.append((end, len(part)))
                parts.append((end, part))
                end += -(-len(part) // _ALIGNMENT) * _ALIGNMENT
            self._places.append(tuple(places))
        self._memory = Memory(end)
        for begin, part in parts:
            self._memory.buffer[begin : begin + len(part)] = part

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        memory = self._memory.buffer.toreadonly()
        pickled, *buffers = [memory[begin : begin + length] for begin, length in self._places[index]]
        return pickle.loads(pickled, buffers=buffers)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} items in {self._memory.size} bytes of shared memory>"


def _pickled(item: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    from mobula._serialization import dumps

    return dumps(item, buffer_callback=buffers.append)


def shared(dataset: Any) -> Any:
    """Put a data set into shared memory once, for a ``DataLoader`` of PyTorch and for other processes.

    Pass the result to the loader in place of the data set. All its workers, forked or spawned, read the same memory:
    none has a copy, and nothing of it is sent to them. Calls and actors that get it as an argument read it, too. It
    needs no session. ::

        import mobula
        from torch.utils.data import DataLoader

        dataset = [(number, number % 2) for number in range(1_000)]
        loader = DataLoader(mobula.shared(dataset), batch_size=32, num_workers=8)

    An array of numpy becomes one that is read-only. Of another data set, which has ``len`` and ``[index]``, each item
    is read once now, and then made of the shared memory each time: its arrays are read-only views.

    Raises:
        TypeError: The data set has no length, or an item cannot be pickled.
    """
    if type(dataset).__module__ == "numpy" and hasattr(dataset, "dtype") and not dataset.dtype.hasobject:
        from mobula._shared_array import SharedArray

        array = SharedArray(dataset.shape, dataset.dtype)
        array[...] = dataset
        array.flags.writeable = False
        return array
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(f"a data set has a length and items by their numbers, which {type(dataset)} has not")
    return Shared(dataset)
