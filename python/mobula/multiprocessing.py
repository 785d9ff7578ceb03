"""``Pool`` with the interface of the standard library's ``multiprocessing``, on a session's shared memory.

::

    from mobula.multiprocessing import Pool

    def square(x):
        return x * x

    with Pool() as pool:
        squares = pool.map(square, range(10_000))
    assert squares[-1] == 9_999**2

Differences from the standard library:

- Functions need not be importable: lambdas and functions of a notebook do as well, and no ``if __name__ ==
  "__main__"`` is needed. A function is sent with the values of the variables that it refers to, as they are when a pool
  first uses it.
- Arrays of numpy reach a function, and the results the program, as read-only memory of the store, without a copy.
- A process that dies is replaced, and the call that it ran fails with ``mobula.exceptions.ActorDiedError``. The
  standard library waits for such a call for ever.
- Locks, queues and shared values of ``multiprocessing`` cannot be passed, because processes are not forked.
"""

from __future__ import annotations

import builtins
import multiprocessing.context
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mobula._processes import Kind, Processes, Sent, Work, check_count, on_new_thread, report

if TYPE_CHECKING:
    from mobula._process import Process
    from mobula._shared_array import SharedArray

__all__ = ["AsyncResult", "IMapIterator", "Pool", "Process", "SharedArray", "TimeoutError", "cpu_count"]

T = TypeVar("T")
R = TypeVar("R")

# How many chunks there are for each process, where nothing is said.
_CHUNKS_PER_PROCESS = 4
# Shorter ranges are faster to read as lists.
_LONG_RANGE = 100


class TimeoutError(multiprocessing.context.TimeoutError, builtins.TimeoutError):
    """The result was not there in time."""


def __getattr__(name: str) -> Any:
    # A pool does without these, and without numpy.
    if name == "Process":
        from mobula._process import Process

        return Process
    if name == "SharedArray":
        from mobula._shared_array import SharedArray

        return SharedArray
    raise AttributeError(f"module 'mobula.multiprocessing' has no attribute {name!r}")


def cpu_count() -> int:
    """Return the number of CPUs of the machine."""
    return os.cpu_count() or 1


class AsyncResult(Generic[R]):
    """The result of ``apply_async``, ``map_async`` or ``starmap_async``, which need not be there yet."""

    def __init__(
        self,
        pool: Pool,
        callback: Callable[[R], Any] | None,
        error_callback: Callable[[BaseException], Any] | None,
    ) -> None:
        # A pool lives as long as it has something to do.
        self._pool: Pool | None = pool
        self._callback, self._error_callback = callback, error_callback
        self._event = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """Whether the call is over."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether the call has returned, and not raised.

        Raises:
            ValueError: The call is not over.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call is over, or so many seconds."""
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> R:
        """Wait for the result, and return it, or raise what the function raised.

        Raises:
            TimeoutError: It was not there within so many seconds.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError(f"the result was not there within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]

    def _set(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error, self._pool = value, error, None
        try:
            if error is None and self._callback is not None:
                self._callback(value)
            if error is not None and self._error_callback is not None:
                self._error_callback(error)
        except BaseException as raised:
            report(raised)
        self._callback = self._error_callback = None
        self._event.set()


class _Apply(Work):
    __slots__ = ("_result",)

    def __init__(self, result: AsyncResult[Any], function: Sent, items: Any) -> None:
        super().__init__(function, Kind.APPLY, items)
        self._result = result

    def ends(self, result: Any, error: BaseException | None) -> None:
        self._result._set(result, error)


class _MapResult(AsyncResult[list[R]]):
    """The result of ``map_async``: it is there when all chunks are."""

    def __init__(self, pool: Pool, length: int, chunksize: int, *callbacks: Any) -> None:
        super().__init__(pool, *callbacks)
        self._lock = threading.Lock()
        self._chunksize, self._left = chunksize, -(-length // chunksize)
        self._values: list[Any] = [None] * length
        self._first_error: BaseException | None = None

    def _chunk_ends(self, index: int, values: Any, error: BaseException | None) -> None:
        if error is None:
            self._values[index * self._chunksize : (index + 1) * self._chunksize] = values
        with self._lock:
            if self._first_error is None:
                self._first_error = error
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._set(None if self._first_error else self._values, self._first_error)


class IMapIterator(Generic[R]):
    """The results of ``imap`` or ``imap_unordered``."""

    def __init__(self, pool: Pool, is_ordered: bool) -> None:
        self._pool: Pool | None = pool
        self._is_ordered = is_ordered
        self._condition = threading.Condition()
        # Chunks whose turn it is, each with its results or an error, and those that came too early.
        self._ready: deque[tuple[Any, BaseException | None]] = deque()
        self._early: dict[int, tuple[Any, BaseException | None]] = {}
        self._next_chunk = 0
        self._count: int | None = None
        self._items: Iterator[R] = iter(())

    def __iter__(self) -> IMapIterator[R]:
        return self

    def __next__(self) -> R:
        return self.next()

    def next(self, timeout: float | None = None) -> R:
        """Wait for the next result.

        Raises:
            StopIteration: There is none.
            TimeoutError: It was not there within so many seconds.
        """
        while True:
            for item in self._items:
                return item
            with self._condition:
                if not self._condition.wait_for(lambda: self._ready or self._is_over(), timeout):
                    raise TimeoutError(f"the next result was not there within {timeout} s")
                if not self._ready:
                    self._pool = None
                    raise StopIteration
                values, error = self._ready.popleft()
            if error is not None:
                raise error
            self._items = iter(values)

    def _is_over(self) -> bool:
        return self._count is not None and self._next_chunk >= self._count

    def _set_count(self, count: int) -> None:
        with self._condition:
            self._count = count
            self._condition.notify_all()

    def _chunk_ends(self, index: int, values: Any, error: BaseException | None) -> None:
        with self._condition:
            if self._is_ordered:
                self._early[index] = (values, error)
                while (chunk := self._early.pop(self._next_chunk, None)) is not None:
                    self._next_chunk += 1
                    self._ready.append(chunk)
            else:
                self._next_chunk += 1
                self._ready.append((values, error))
            self._condition.notify_all()


class _Chunk(Work):
    __slots__ = ("_index", "_result")

    def __init__(
        self, result: _MapResult[Any] | IMapIterator[Any], index: int, function: Sent, kind: str, items: Any
    ) -> None:
        super().__init__(function, kind, items)
        self._result, self._index = result, index

    def ends(self, result: Any, error: BaseException | None) -> None:
        self._result._chunk_ends(self._index, result, error)


class Pool:
    """A pool of processes, which share the calls that it gets.

    Args:
        processes: How many processes. Default: as many as the session has CPUs.
        initializer: Called in each process before anything else, as ``initializer(*initargs)``.
        initargs: Its arguments.
        maxtasksperchild: A process is replaced after so many calls or chunks. Default: never.
        context: Not used; the standard library has it.
        ray_address: Not used: the session is on this machine.
        ray_remote_args: Options of the processes, as ``mobula.remote`` takes them for classes.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        count = check_count(processes, "processes")
        self._processes = Processes(count, initializer, initargs, maxtasksperchild, ray_remote_args)
        # A pool that is forgotten ends its processes.
        self._finalizer = weakref.finalize(self, on_new_thread, self._processes.terminate)
        self._finalizer.atexit = False

    def __enter__(self) -> Pool:
        self._processes.check_is_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def apply(self, func: Callable[..., R], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> R:
        """Call ``func(*args, **kwds)`` in a process, and wait for the result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[R], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult[R]:
        """Call ``func(*args, **kwds)`` in a process.

        ``callback`` is called with the result, or ``error_callback`` with the error, in a thread of the pool.
        """
        self._processes.check_is_open()
        result: AsyncResult[R] = AsyncResult(self, callback, error_callback)
        items = (tuple(args), dict(kwds) if kwds else {})
        self._processes.submit(iter((_Apply(result, self._processes.sent(func), items),)))
        return result

    def map(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int | None = None) -> list[R]:
        """Call ``func`` with each item, and return the results in order."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[T], R],
        iterable: Iterable[T],
        chunksize: int | None = None,
        callback: Callable[[list[R]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult[list[R]]:
        """Call ``func`` with each item. Processes get ``chunksize`` items at a time. See ``apply_async``."""
        return self._map(Kind.MAP, func, iterable, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., R], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[R]:
        """Call ``func(*item)`` for each item, and return the results in order."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[R]], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult[list[R]]:
        """Call ``func(*item)`` for each item. See ``map_async``."""
        return self._map(Kind.STARMAP, func, iterable, chunksize, callback, error_callback)

    def _map(
        self,
        kind: str,
        func: Callable[..., R],
        iterable: Iterable[Any],
        chunksize: int | None,
        *callbacks: Any,
    ) -> AsyncResult[list[R]]:
        self._processes.check_is_open()
        items = _sequence(iterable)
        if chunksize is None:
            chunksize = -(-len(items) // (self._processes.count * _CHUNKS_PER_PROCESS))
        chunksize = max(1, int(chunksize))
        result: _MapResult[R] = _MapResult(self, len(items), chunksize, *callbacks)
        if len(items) == 0:
            result._set([], None)
            return result
        chunks = _chunks(result, self._processes.sent(func), kind, items, chunksize)
        self._processes.submit(chunks)
        return result

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> IMapIterator[R]:
        """Call ``func`` with each item, and give the results in order, as they come.

        An iterable that is no list, tuple or range is read in a thread, as fast as it gives items.
        """
        return self._imap(True, func, iterable, chunksize)

    def imap_unordered(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> IMapIterator[R]:
        """Call ``func`` with each item, and give the results in the order in which they come. See ``imap``."""
        return self._imap(False, func, iterable, chunksize)

    def _imap(self, is_ordered: bool, func: Callable[[T], R], iterable: Iterable[T], chunksize: int) -> IMapIterator[R]:
        self._processes.check_is_open()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        result: IMapIterator[R] = IMapIterator(self, is_ordered)
        sent = self._processes.sent(func)
        if type(iterable) in _SEQUENCES:
            items: Any = iterable
            result._set_count(-(-len(items) // chunksize))
            self._processes.submit(_chunks(result, sent, Kind.MAP, items, chunksize))
        else:
            items, processes = iter(iterable), self._processes
            processes.feed(lambda: _feed(processes, result, sent, items, chunksize))
        return result

    def close(self) -> None:
        """Take no more calls. The processes end when all calls are over."""
        self._processes.close()

    def terminate(self) -> None:
        """End the processes at once. Calls that are not over fail with ``RuntimeError``."""
        self._processes.terminate()

    def join(self) -> None:
        """Wait until all calls are over, after ``close`` or ``terminate``.

        Raises:
            ValueError: The pool was not closed.
        """
        try:
            self._processes.check_is_open()
        except ValueError:
            self._processes.join()
        else:
            raise ValueError("Pool is still running")


# Their slices are made without running code of the program.
_SEQUENCES: tuple[type, ...] = (list, tuple, range)


def _sequence(iterable: Any) -> Sequence[Any]:
    # A slice of a range is sent as its ends. A slice of an array is one piece of memory.
    if type(iterable) in (tuple, range):
        return iterable  # type: ignore[no-any-return]
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(iterable) is numpy.ndarray and iterable.ndim > 0:
        return iterable  # type: ignore[no-any-return]
    # A copy: the program may change its list meanwhile.
    return list(iterable)


def _chunks(result: Any, sent: Sent, kind: str, items: Sequence[Any], chunksize: int) -> Iterator[Work]:
    if type(items) is range and chunksize < _LONG_RANGE:
        items = list(items)
    for index, start in enumerate(range(0, len(items), chunksize)):
        yield _Chunk(result, index, sent, kind, items[start : start + chunksize])


def _feed(processes: Processes, result: IMapIterator[Any], sent: Sent, items: Iterator[Any], chunksize: int) -> None:
    """Submit chunks of an iterable. An exception that it raises is the last result."""
    index = 0
    error: BaseException | None = None
    while error is None and not processes.is_terminated:
        chunk: list[Any] = []
        try:
            for item in items:
                chunk.append(item)
                if len(chunk) == chunksize:
                    break
        except BaseException as raised:
            error = raised
        if chunk:
            work = _Chunk(result, index, sent, Kind.MAP, chunk)
            processes.submit(iter((work,)), from_feeder=True)
            index += 1
        elif error is None:
            break
    result._set_count(index + (error is not None))
    if error is not None:
        result._chunk_ends(index, None, error)
