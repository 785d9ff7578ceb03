"""Actors that have several calls under way: on an event loop, or on threads. This runs in the actor's process."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mobula import _mobula
from mobula._waiting import waits_of
from mobula._worker import NOT_YET
from mobula.exceptions import TaskCancelledError

# How often a stream that has no item looks whether its caller still wants one.
LOOK_S = 0.05


class Runner:
    """Runs the calls of one actor."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.groups: dict[str | None, int] = {None: description["max"], **description["groups"]}
        self.group_of: dict[str, str] = description["methods"]

    def group(self, name: str) -> str | None:
        """The group that a call runs in. Its name may be behind the method's."""
        method, _, wanted = name.partition("\1")
        method = method.partition("\2")[0]
        group = wanted or self.group_of.get(method)
        if group not in self.groups:
            raise ValueError(f"the actor has no concurrency group {group!r}: it has {[*self.groups][1:]}")
        return group

    def submit(
        self,
        name: str,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        reply: _mobula.Reply,
    ) -> None:
        """Begin a call. Its answer goes to ``reply``."""
        raise NotImplementedError

    def iterate(self, items: Any) -> Iterator[Any]:
        """The items of a stream."""
        return iter(items)


class AsyncRunner(Runner):
    """Runs the calls as tasks of an event loop, which has a thread of its own."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.loop = asyncio.new_event_loop()
        self.places = {group: asyncio.Semaphore(count) for group, count in self.groups.items()}
        self.tasks: set[asyncio.Task[None]] = set()
        self.waits = waits_of(self.loop)
        threading.Thread(target=self.loop.run_forever, name="mobula-async", daemon=True).start()

    def submit(
        self,
        name: str,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        reply: _mobula.Reply,
    ) -> None:
        places = self.places[self.group(name)]
        self.loop.call_soon_threadsafe(self._begin, places, method, args, kwargs or {}, reply)

    def _begin(
        self,
        places: asyncio.Semaphore,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply: _mobula.Reply,
    ) -> None:
        task = self.loop.create_task(self._run(places, method, args, kwargs, reply))
        self.tasks.add(task)
        number = self.waits.next_number()

        def look() -> None:
            if reply.is_cancelled(self.waits.notifier, number):
                task.cancel()

        def over(_: object) -> None:
            self.tasks.discard(task)
            self.waits.looks.pop(number, None)

        self.waits.looks[number] = look
        task.add_done_callback(over)
        look()

    async def _run(
        self,
        places: asyncio.Semaphore,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply: _mobula.Reply,
    ) -> None:
        try:
            async with places:
                result = method(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
        except asyncio.CancelledError:
            reply.fail(TaskCancelledError("the call was cancelled"))
        except BaseException as error:
            reply.fail(error)
        else:
            reply.give(result)

    def iterate(self, items: Any) -> Iterator[Any]:
        if not hasattr(items, "__anext__"):
            yield from items
            return
        item = None
        try:
            while True:
                item = item or asyncio.run_coroutine_threadsafe(anext(items), self.loop)
                try:
                    found = item.result(timeout=LOOK_S)
                except TimeoutError:
                    # The stream's place looks meanwhile whether its caller still wants items.
                    if not item.done():
                        yield NOT_YET
                        continue
                    raise
                except StopAsyncIteration:
                    return
                item = None
                yield found
        finally:
            if item is not None:
                item.cancel()


class ThreadRunner(Runner):
    """Runs the calls on threads."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.pools = {
            group: ThreadPoolExecutor(count, thread_name_prefix=f"mobula-{group or 'calls'}")
            for group, count in self.groups.items()
        }

    def submit(
        self,
        name: str,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        reply: _mobula.Reply,
    ) -> None:
        self.pools[self.group(name)].submit(self._run, method, args, kwargs or {}, reply)

    def _run(
        self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], reply: _mobula.Reply
    ) -> None:
        if reply.was_cancelled():
            # It waited for a thread, and has not begun.
            reply.fail(TaskCancelledError("the call was cancelled"))
            return
        try:
            result = method(*args, **kwargs)
        except BaseException as error:
            reply.fail(error)
        else:
            reply.give(result)


def runner(description: dict[str, Any]) -> Runner:
    """What runs the calls of an actor that has several under way."""
    return AsyncRunner(description) if description["async"] else ThreadRunner(description)
