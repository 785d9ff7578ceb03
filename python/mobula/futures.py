"""An executor with the interface of the standard library's ``concurrent.futures``, on a session's shared memory.

::

    from mobula.futures import Executor

    with Executor() as executor:
        future = executor.submit(pow, 2, 10)
        texts = list(executor.map(str, range(100)))
        assert (future.result(), texts[-1]) == (1024, "99")

It differs from ``ProcessPoolExecutor`` in what ``mobula.multiprocessing`` lists. A process that dies fails the call
that it ran, and no other.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

from mobula._processes import Kind, Processes, Sent, Work, check_count, on_new_thread

__all__ = ["Executor"]

P = ParamSpec("P")
T = TypeVar("T")


class _Call(Work):
    """A call whose result is a future's."""

    __slots__ = ("future",)

    def __init__(self, function: Sent, kind: str, items: Any) -> None:
        super().__init__(function, kind, items)
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def begins(self) -> bool:
        return self.future.set_running_or_notify_cancel()

    def ends(self, result: Any, error: BaseException | None) -> None:
        # A call that never began may be cancelled at the same time.
        if not self.future.running() and not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)

    def cancel(self) -> None:
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class _Chunks:
    """A function that is called with a chunk of arguments at a time."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent


class Executor(concurrent.futures.Executor):
    """Calls functions in a number of processes.

    Args:
        max_workers: How many processes. Default: as many as the session has CPUs.
        initializer: Called in each process before anything else, as ``initializer(*initargs)``.
        initargs: Its arguments.
        max_tasks_per_child: A process is replaced after so many calls. Default: never.
        ray_remote_args: Options of the processes, as ``mobula.remote`` takes them for classes.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None and max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
        count = check_count(max_workers, "max_workers")
        self._processes = Processes(count, initializer, initargs, max_tasks_per_child, ray_remote_args)
        # An executor that is forgotten does what it was given, and then ends its processes.
        weakref.finalize(self, on_new_thread, self._processes.close).atexit = False
        _processes.add(self._processes)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Call ``fn(*args, **kwargs)`` in a process. The future can be cancelled until a process has the call.

        Raises:
            RuntimeError: The executor was shut down.
        """
        try:
            self._processes.check_is_open()
            if isinstance(fn, _Chunks):
                call = _Call(fn.sent, Kind.STARMAP, args[0])
            else:
                call = _Call(self._processes.sent(fn), Kind.APPLY, (args, kwargs))
            self._processes.submit(iter((call,)))
        except ValueError:
            if not self._processes.is_closed:
                raise
            raise RuntimeError("cannot schedule new futures after shutdown") from None
        return call.future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """Call ``fn`` with the items of the iterables, and give the results in order.

        Args:
            fn: The function.
            iterables: Its arguments, as ``map`` takes them.
            timeout: The results must be there so many seconds after this call.
            chunksize: A process gets so many calls at a time.
            options: ``buffersize``, where the standard library has it.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        items = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        call: Any = _Chunks(self._processes.sent(fn))
        lists: Iterator[list[T]] = super().map(call, chunks, timeout=timeout, **options)
        return _flat(lists)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. The processes end when all calls are over.

        Args:
            wait: Whether to wait for that.
            cancel_futures: Whether to cancel the calls that no process has yet.
        """
        self._processes.close()
        if cancel_futures:
            for work in self._processes.drop_waiting():
                if isinstance(work, _Call):
                    work.cancel()
        if wait:
            self._processes.join()

    def terminate(self) -> None:
        """End the processes at once. Calls that are not over fail with ``RuntimeError``."""
        self._processes.terminate()


def _flat(lists: Iterator[list[T]]) -> Iterator[T]:
    for values in lists:
        # A result that was given is not kept.
        values.reverse()
        while values:
            yield values.pop()


# As with the standard library, a program ends when the calls are over that it made.
_processes: weakref.WeakSet[Processes] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    for processes in list(_processes):
        processes.close()
    for processes in list(_processes):
        processes.join()
