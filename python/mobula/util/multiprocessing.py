"""``Pool`` under the name that it has in Ray, and with Ray's meaning: else see ``mobula.multiprocessing``.

Other names are those of the standard library. ::

    from mobula.util.multiprocessing import Pool

    with Pool(2) as pool:
        assert pool.map(lambda x: x * x, range(4)) == [0, 1, 4, 9]
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from mobula import multiprocessing as pools
from mobula.multiprocessing import AsyncResult, IMapIterator, TimeoutError

__all__ = ["AsyncResult", "IMapIterator", "Pool", "PoolTaskError", "TimeoutError"]

T = TypeVar("T")
R = TypeVar("R")


class PoolTaskError(Exception):
    """A result of ``imap`` or ``imap_unordered`` whose call has raised."""

    def __init__(self, underlying: Exception) -> None:
        super().__init__(underlying)
        #: The exception that the call has raised.
        self.underlying = underlying


class Pool(pools.Pool):
    """A pool of processes, which share the calls that it gets: ``mobula.multiprocessing.Pool``, with two differences.

    - The processes are there, and the initializer has run in each, when the pool is made.
    - ``imap`` and ``imap_unordered`` return the errors of calls among the results, as ``PoolTaskError``, and do not
      raise them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self._processes.wait_until_ready()
        except BaseException:
            self.terminate()
            raise

    def imap(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> IMapIterator[R]:
        """Call ``func`` with each item, and give the results in order, as they come, and errors among them."""
        return super().imap(_caught(func), iterable, chunksize)

    def imap_unordered(self, func: Callable[[T], R], iterable: Iterable[T], chunksize: int = 1) -> IMapIterator[R]:
        """Call ``func`` with each item, and give the results in the order in which they come. See ``imap``."""
        return super().imap_unordered(_caught(func), iterable, chunksize)


def _caught(func: Callable[[T], R]) -> Callable[[T], Any]:
    """Return a function that returns the errors of the function."""

    def call(item: T) -> Any:
        try:
            return func(item)
        except Exception as error:
            return PoolTaskError(error)

    return call


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing, name)
