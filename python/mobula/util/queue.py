"""A queue that processes share, with Ray's interface.

The items are in an actor, which never waits: it gives an item, or takes one, or says that it cannot. A caller that
waits for an item or for room waits at a gate, a second actor, which is started when the first caller waits. The gate
lets all its callers go when the queue changes, and after half a second at the latest; then each tries again. So an item
goes to a caller only as the answer to a call that is on its way. A caller that no longer waits, or that died while it
waited, gets none.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import mobula
from mobula import ActorHandle, ObjectRef
from mobula.exceptions import RayActorError

__all__ = ["Empty", "Full", "Queue"]

# A gate lets its callers go after so long: what they wait for may have come while they were on their way.
_PAUSE_S = 0.5


class Empty(queue.Empty):
    """The queue has no item, or not as many as wanted."""


class Full(queue.Full):
    """The queue has no room for the item or the items."""


class _Gate:
    """The process at which callers wait. It reads the number of the queue's last change from the queue's pipe."""

    def __init__(self, process: int, descriptor: int) -> None:
        self._pipe = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._events = select.poll()
        self._events.register(self._pipe, select.POLLIN)
        self._change, self._is_over = 0, False

    def wait(self, change: int) -> None:
        """Wait for a later change than this."""
        deadline = time.monotonic() + _PAUSE_S
        while self._change <= change and not self._is_over:
            left = deadline - time.monotonic()
            if left <= 0 or not self._events.poll(left * 1000):
                return
            numbers = os.read(self._pipe, 1 << 16)
            self._is_over = not numbers
            self._change = int.from_bytes(numbers[-8:]) if numbers else self._change


# A gate and the change that a caller knows.
_Wait = tuple[ActorHandle, int]


class _Items:
    """The process that has the items."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize if maxsize > 0 else float("inf")
        self._items: deque[Any] = deque()
        self._change = 0
        self._gate: ActorHandle | None = None
        self._pipe = (-1, -1)
        # Whether somebody may wait for a change.
        self._is_awaited = False

    def empty(self) -> bool:
        """Whether there is no item."""
        return not self._items

    def size(self) -> int:
        return len(self._items)

    def put(self, item: Any, waits: bool) -> tuple[bool, _Wait | None]:
        if len(self._items) >= self._maxsize:
            return False, self._wait() if waits else None
        self._items.append(item)
        self._changes()
        return True, None

    def get(self, waits: bool) -> tuple[bool, Any]:
        if not self._items:
            return False, self._wait() if waits else None
        item = self._items.popleft()
        self._changes()
        return True, item

    def take_back(self, answer: tuple[bool, Any]) -> None:
        """Take what ``get`` answered: its caller was interrupted."""
        found, item = answer
        if found:
            self._items.appendleft(item)
            self._changes()

    def put_batch(self, items: list[Any]) -> bool:
        if len(self._items) + len(items) > self._maxsize:
            return False
        self._items.extend(items)
        self._changes()
        return True

    def get_batch(self, count: int) -> list[Any] | None:
        if count > len(self._items):
            return None
        items = [self._items.popleft() for _ in range(count)]
        self._changes()
        return items

    def _wait(self) -> _Wait:
        if self._gate is None:
            self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._gate = mobula.remote(num_cpus=0)(_Gate).remote(os.getpid(), self._pipe[0])
        self._is_awaited = True
        return self._gate, self._change

    def _changes(self) -> None:
        self._change += 1
        if self._is_awaited:
            # A full pipe has changes that wake all that wait.
            with contextlib.suppress(BlockingIOError):
                os.write(self._pipe[1], self._change.to_bytes(8))
            self._is_awaited = False


class Queue:
    """A first-in-first-out queue, which can be passed to functions and actors.

    ::

        import mobula as ray
        from mobula.util.queue import Queue

        @ray.remote
        def produce(queue):
            for number in range(3):
                queue.put(number)

        queue = Queue(maxsize=100)
        produce.remote(queue)
        assert [queue.get(timeout=10) for _ in range(3)] == [0, 1, 2]

    The queue is there until its last handle is gone, or until ``shutdown``.

    Args:
        maxsize: How many items the queue has room for. 0, and less: as many as come.
        actor_options: Options of the actor that has the items, as ``ActorClass.options`` takes them.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor: Any = mobula.remote(num_cpus=0)(_Items).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Return the number of items."""
        return int(mobula.get(self.actor.size.remote()))

    def qsize(self) -> int:
        """Return the number of items."""
        return self.size()

    def empty(self) -> bool:
        """Whether the queue has no item."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether the queue has no room."""
        return self.maxsize > 0 and self.size() >= self.maxsize

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item.

        Args:
            item: Any value that can be passed to a call.
            block: Whether to wait for room.
            timeout: The most seconds to wait. Default: no limit.

        Raises:
            Full: There is no room.
            ValueError: The timeout is negative.
        """
        deadline = _deadline(block, timeout)
        while True:
            is_done, wait = mobula.get(self.actor.put.remote(item, block))
            if is_done:
                return
            if wait is None or not _pass(wait, deadline):
                raise Full

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, as ``put`` does, and let the event loop go on meanwhile."""
        deadline = _deadline(block, timeout)
        while True:
            is_done, wait = await self.actor.put.remote(item, block)
            if is_done:
                return
            if wait is None or not await _pass_async(wait, deadline):
                raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item.

        Args:
            block: Whether to wait for an item.
            timeout: The most seconds to wait. Default: no limit.

        Raises:
            Empty: There is no item.
            ValueError: The timeout is negative.
        """
        deadline = _deadline(block, timeout)
        while True:
            answer = self.actor.get.remote(block)
            with self._given_back(answer):
                is_done, item = mobula.get(answer)
            if is_done:
                return item
            if item is None or not _pass(item, deadline):
                raise Empty

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item, as ``get`` does, and let the event loop go on meanwhile."""
        deadline = _deadline(block, timeout)
        while True:
            answer = self.actor.get.remote(block)
            with self._given_back(answer):
                is_done, item = await answer
            if is_done:
                return item
            if item is None or not await _pass_async(item, deadline):
                raise Empty

    @contextlib.contextmanager
    def _given_back(self, answer: ObjectRef[Any]) -> Any:
        """Give back the item, if this is interrupted before the caller has it."""
        try:
            yield
        except RayActorError:
            raise
        except BaseException:
            with contextlib.suppress(Exception):
                self.actor.take_back.remote(answer)
            raise

    def put_nowait(self, item: Any) -> None:
        """Add an item, or raise ``Full``."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the first item, or raise ``Empty``."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items in one call, or raise ``Full`` if there is not room for all."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        items = list(items)
        if not mobula.get(self.actor.put_batch.remote(items)):
            raise Full(f"Cannot add {len(items)} items to queue of size {self.qsize()} and maxsize {self.maxsize}.")

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items in one call, or raise ``Empty`` if there are not so many."""
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int.")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative.")
        items = mobula.get(self.actor.get_batch.remote(num_items))
        if items is None:
            raise Empty(f"Cannot get {num_items} items from queue of size {self.qsize()}.")
        return list(items)

    def shutdown(self, force: bool = False, grace_period_s: int = 5) -> None:
        """End the queue. Calls that wait, and later ones, fail with ``ActorDiedError``.

        Args:
            force: Whether to end it before it has answered the calls that were made.
            grace_period_s: After so many seconds it is ended anyway.
        """
        if self.actor:
            if not force:
                done = self.actor.__ray_terminate__.remote()
                force = not mobula.wait([done], timeout=grace_period_s)[0]
            if force:
                mobula.kill(self.actor)
        self.actor = None


def _deadline(block: bool, timeout: float | None) -> float | None:
    if block and timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _pass(wait: _Wait, deadline: float | None) -> bool:
    """Wait at a gate. Returns whether there is time to try again."""
    gate, change = wait
    passed = gate.wait.remote(change)
    if not mobula.wait([passed], timeout=_left(deadline))[0]:
        return False
    mobula.get(passed)
    return True


async def _pass_async(wait: _Wait, deadline: float | None) -> bool:
    import asyncio

    gate, change = wait
    try:
        await asyncio.wait_for(gate.wait.remote(change), _left(deadline))
    except TimeoutError:
        return False
    return True
