"""Arrays in shared memory that all processes can write."""

from __future__ import annotations

from typing import Any

import numpy as np

from mobula._memory import Memory


class SharedArray(np.ndarray[Any, Any]):
    """An array of zeros in shared memory, like one over ``multiprocessing.shared_memory``.

    A call, an actor or another process that gets it, or a part of it by slices, has the same memory: what one writes,
    the others read. Nothing orders what they do, as with threads. The memory is freed when no process has it.

    Results of arithmetic and copies are arrays of their own, not shared ones.
    """

    _memory: Memory | None

    def __new__(cls, shape: Any, dtype: Any = float) -> SharedArray:
        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(f"an array of objects cannot be shared, and {dtype} has some")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        memory = Memory(int(np.prod(shape, dtype=int)) * dtype.itemsize)
        return cls._over(memory, 0, shape, None, dtype, True)

    @classmethod
    def _over(
        cls,
        memory: Memory,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: Any,
        is_writeable: bool,
    ) -> SharedArray:
        array = np.ndarray.__new__(cls, shape, dtype, memory.buffer, offset, strides)
        array._memory = memory
        array.flags.writeable = is_writeable
        return array

    def __array_finalize__(self, of: Any) -> None:
        # A view shares the memory of its array; a result has memory of its own.
        memory = getattr(of, "_memory", None)
        self._memory = memory if memory is not None and np.may_share_memory(self, of) else None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = array.view(np.ndarray)
        return plain[()] if return_scalar else plain

    def __reduce__(self) -> Any:
        if self._memory is None:
            return self.view(np.ndarray).__reduce__()
        begin = np.frombuffer(self._memory.buffer, np.uint8).__array_interface__["data"][0] if self._memory.size else 0
        offset = self.__array_interface__["data"][0] - begin if self._memory.size else 0
        parts = (self._memory, offset, self.shape, self.strides, self.dtype, self.flags.writeable)
        return (SharedArray._over, parts)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def __deepcopy__(self, memo: Any) -> Any:
        return np.array(self, subok=False)
