"""Waiting for references in an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from mobula import _mobula
from mobula._mobula import ObjectRef


class _Waits:
    """What the coroutines of one event loop wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.notifier = _mobula.Notifier()
        self.number = 0
        self.looks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self.notifier.fileno(), self.woken)

    def woken(self) -> None:
        for number in self.notifier.take():
            look = self.looks.get(number)
            if look is not None:
                look()

    def next_number(self) -> int:
        """A number for a wait."""
        self.number += 1
        return self.number

    async def until(self, poll: Callable[[int], tuple[bool, Any]]) -> Any:
        """Wait until ``poll``, which gets the number of this wait, says that it is over, and return its result."""
        number = self.next_number()
        is_over, result = poll(number)
        if is_over:
            return result
        future = asyncio.get_running_loop().create_future()

        def look() -> None:
            if future.done():
                return
            try:
                is_over, result = poll(number)
            except BaseException as error:
                future.set_exception(error)
            else:
                if is_over:
                    future.set_result(result)

        self.looks[number] = look
        try:
            return await future
        finally:
            del self.looks[number]


_waits: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waits] = weakref.WeakKeyDictionary()


def waits_of(loop: asyncio.AbstractEventLoop) -> _Waits:
    """What the coroutines of this loop wait for. Called by its thread, or before it runs."""
    waits = _waits.get(loop)
    if waits is None:
        waits = _waits[loop] = _Waits(loop)
    return waits


async def wait_for(reference: ObjectRef[Any]) -> Any:
    """Wait for the value of a reference."""
    if not reference.is_ready():
        waits, waiting = waits_of(asyncio.get_running_loop()), _mobula.Waiting(reference)
        await waits.until(lambda number: (waiting.poll(waits.notifier, number), None))
    return _mobula.get(reference, None)


async def next_item(items: _mobula.Items) -> ObjectRef[Any] | None:
    """Wait for the next item of a stream. ``None`` is its end."""
    waits = waits_of(asyncio.get_running_loop())

    def poll(number: int) -> tuple[bool, Any]:
        item = items.poll_next(waits.notifier, number)
        return item is not False, item

    item: ObjectRef[Any] | None = await waits.until(poll)
    return item


def wait_for_any(things: Sequence[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
    """Wait until so many references and generators are ready, or the time has passed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    notifier = _mobula.Notifier()
    polls = [_poll_of(thing) for thing in things]
    ready: set[int] = set()
    waiting = list(range(len(things)))
    while True:
        ready.update(place for place in waiting if polls[place](notifier, place))
        left = None if deadline is None else deadline - time.monotonic()
        if len(ready) >= num_returns or (left is not None and left <= 0):
            break
        select.select([notifier], [], [], left)
        waiting = [place for place in notifier.take() if place not in ready]
    first = sorted(ready)[:num_returns]
    others = [thing for place, thing in enumerate(things) if place not in first]
    return [things[place] for place in first], others


def _poll_of(thing: Any) -> Callable[[_mobula.Notifier, int], bool]:
    if isinstance(thing, ObjectRef):
        return _mobula.Waiting(thing).poll
    poll: Callable[[_mobula.Notifier, int], bool] = thing._is_ready
    return poll


_lock = threading.Lock()
_background: asyncio.AbstractEventLoop | None = None
_waiting_thread: threading.Thread | None = None


def _after_fork() -> None:
    """A forked child has none of the parent's threads."""
    global _background, _lock
    _background, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class _Result(concurrent.futures.Future[Any]):
    """The result of a reference. A callback runs on a thread of its own: it may wait for other results."""

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        def call(done: concurrent.futures.Future[Any]) -> None:
            if threading.current_thread() is _waiting_thread:
                threading.Thread(target=fn, args=(done,), name="mobula-callback", daemon=True).start()
            else:
                fn(done)

        super().add_done_callback(call)


def future(reference: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
    """Return the result of a reference as a future. One thread waits for all of them."""
    global _background, _waiting_thread
    with _lock:
        if _background is None:
            _background = asyncio.new_event_loop()
            _waiting_thread = threading.Thread(target=_background.run_forever, name="mobula-futures", daemon=True)
            _waiting_thread.start()
        loop = _background
    result = _Result()

    async def wait() -> None:
        try:
            value = await wait_for(reference)
        except BaseException as error:
            give: Callable[[], None] = functools.partial(result.set_exception, error)
        else:
            give = functools.partial(result.set_result, value)
        # The program may have cancelled it.
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            give()

    asyncio.run_coroutine_threadsafe(wait(), loop)
    return result


def as_future(reference: ObjectRef[Any]) -> asyncio.Future[Any]:
    """Return the result of a reference as a future of the running event loop."""
    return asyncio.ensure_future(wait_for(reference))


def on_completed(reference: ObjectRef[Any], callback: Callable[[Any], object]) -> None:
    """Call a function with the value or the error, on a thread of its own, as soon as it is there."""
    future(reference).add_done_callback(lambda done: callback(done.exception() or done.result()))
