"""Actors that have several calls under way: on an event loop, or on threads. This runs in the actor's process."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mobula import _mobula
from mobula._session import RunningCall, set_running_call
from mobula._waiting import waits_of
from mobula.exceptions import TaskCancelledError


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
        running: RunningCall | None,
    ) -> None:
        """Begin a call. Its answer goes to ``reply``. ``running`` is what it can ask about itself."""
        raise NotImplementedError

    def stream(self, name: str, call: _mobula.StreamCall) -> None:
        """Begin a call whose results are a stream."""
        raise NotImplementedError


class _Loop:
    """The event loop of a concurrency group. It has a thread of its own."""

    def __init__(self, group: str | None, count: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.places = asyncio.Semaphore(count)
        self.tasks: set[asyncio.Task[None]] = set()
        self.waits = waits_of(self.loop)
        name = f"mobula-async-{group}" if group else "mobula-async"
        threading.Thread(target=self.loop.run_forever, name=name, daemon=True).start()

    def begin(self, running: Coroutine[Any, Any, None], wanted: Callable[[int], bool]) -> None:
        """Run a call. It is cancelled once ``wanted``, which gets the number of a wait, says that nobody wants it."""
        task = self.loop.create_task(running)
        self.tasks.add(task)
        number = self.waits.next_number()

        def look() -> None:
            if not wanted(number):
                task.cancel()

        def over(_: object) -> None:
            self.tasks.discard(task)
            self.waits.looks.pop(number, None)

        self.waits.looks[number] = look
        task.add_done_callback(over)
        look()

    async def run(
        self,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply: _mobula.Reply,
        running: RunningCall | None,
    ) -> None:
        """Run a method, and answer."""
        set_running_call(running)
        try:
            async with self.places:
                result = method(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
        except asyncio.CancelledError:
            reply.fail(TaskCancelledError("the call was cancelled"))
        except BaseException as error:
            reply.fail(error)
        else:
            reply.give(result)

    async def stream(self, call: _mobula.StreamCall) -> None:
        """Run a method that is a generator, and send its items as they come."""
        set_running_call(call.running())
        async with self.places:
            number = self.waits.next_number()
            opened = call.open(self.waits.notifier, number)
            if opened is None:
                return
            stream, items = opened
            task, room = asyncio.current_task(), asyncio.Event()

            def look() -> None:
                wants = stream.wants()
                if wants is False and task is not None:
                    # The method may be waiting for something that never comes.
                    task.cancel()
                elif wants:
                    room.set()

            self.waits.looks[number] = look
            try:
                async for item in _items(items):
                    room.clear()
                    wants = stream.give(item)
                    if wants is None:
                        await room.wait()
                    elif not wants:
                        break
            except asyncio.CancelledError:
                stream.end(TaskCancelledError("the call was cancelled"))
            except BaseException as error:
                stream.end(error)
            else:
                stream.end(None)
            finally:
                del self.waits.looks[number]


async def _items(items: Any) -> AsyncIterator[Any]:
    """The items of a generator of either kind. The generator is closed at the end."""
    if hasattr(items, "__anext__"):
        try:
            async for item in items:
                yield item
        finally:
            if hasattr(items, "aclose"):
                await items.aclose()
    else:
        for item in items:
            yield item


class AsyncRunner(Runner):
    """Runs the calls as tasks of event loops, of which each concurrency group has one."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.loops = {group: _Loop(group, count) for group, count in self.groups.items()}

    def submit(
        self,
        name: str,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        reply: _mobula.Reply,
        running: RunningCall | None,
    ) -> None:
        loop = self.loops[self.group(name)]

        def begin() -> None:
            notifier = loop.waits.notifier
            loop.begin(
                loop.run(method, args, kwargs or {}, reply, running),
                lambda number: not reply.is_cancelled(notifier, number),
            )

        loop.loop.call_soon_threadsafe(begin)

    def stream(self, name: str, call: _mobula.StreamCall) -> None:
        loop = self.loops[self.group(name)]
        loop.loop.call_soon_threadsafe(lambda: loop.begin(loop.stream(call), lambda _: True))


class ThreadRunner(Runner):
    """Runs the calls on threads."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.pools = {
            group: ThreadPoolExecutor(count, thread_name_prefix=f"mobula-{group or 'calls'}")
            for group, count in self.groups.items()
        }

    def stream(self, name: str, call: _mobula.StreamCall) -> None:
        self.pools[self.group(name)].submit(self._stream, call)

    def _stream(self, call: _mobula.StreamCall) -> None:
        set_running_call(call.running())
        call.run()

    def submit(
        self,
        name: str,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        reply: _mobula.Reply,
        running: RunningCall | None,
    ) -> None:
        self.pools[self.group(name)].submit(self._run, method, args, kwargs or {}, reply, running)

    def _run(
        self,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply: _mobula.Reply,
        running: RunningCall | None,
    ) -> None:
        set_running_call(running)
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
