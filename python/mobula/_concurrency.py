"""Runs several calls of an actor at a time, on an event loop or on threads. This runs in the actor's process."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mobula import _mobula
from mobula._context import RunningCall, set_running_call
from mobula._waiting import waits_of
from mobula.exceptions import TaskCancelledError


class _Call(NamedTuple):
    """A call: the method with its arguments, the reply, and the context of the call."""

    method: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reply: _mobula.Reply
    running: RunningCall | None


class Runner:
    """Runs the calls of one actor."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.groups: dict[str | None, int] = {None: description["max"], **description["groups"]}
        self.group_of: dict[str, str] = description["methods"]

    def group(self, name: str) -> str | None:
        """Return the group that a call runs in. Its name may follow the name of the method."""
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
        """Begin a call. Its answer goes to ``reply``. ``running`` describes it to the code that it runs."""
        self._begin(self.group(name), _Call(method, args, kwargs or {}, reply, running))

    def stream(self, name: str, call: _mobula.StreamCall) -> None:
        """Begin a call whose results are a stream."""
        self._begin_stream(self.group(name), call)

    def _begin(self, group: str | None, call: _Call) -> None:
        raise NotImplementedError

    def _begin_stream(self, group: str | None, call: _mobula.StreamCall) -> None:
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
        """Run a call. It is cancelled once ``wanted``, which gets the number of a wait, returns false."""
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

    async def run(self, call: _Call) -> None:
        """Run a method, and send the answer."""
        set_running_call(call.running)
        try:
            async with self.places:
                call.reply.begin()
                result = call.method(*call.args, **call.kwargs)
                if inspect.isawaitable(result):
                    result = await result
        except asyncio.CancelledError:
            call.reply.fail(TaskCancelledError("the call was cancelled"))
        except BaseException as error:
            call.reply.fail(error)
        else:
            call.reply.give(result)

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
                    # The method may wait for something that never comes.
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
    """Iterate a generator, sync or async. It is closed at the end."""
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
    """Runs the calls as tasks of event loops. Each concurrency group has one."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.loops = {group: _Loop(group, count) for group, count in self.groups.items()}
        # The constructor, which this thread calls next, finds the loop of the methods without a group.
        asyncio.set_event_loop(self.loops[None].loop)

    def _begin(self, group: str | None, call: _Call) -> None:
        loop = self.loops[group]

        def is_wanted(number: int) -> bool:
            return not call.reply.is_cancelled(loop.waits.notifier, number)

        loop.loop.call_soon_threadsafe(lambda: loop.begin(loop.run(call), is_wanted))

    def _begin_stream(self, group: str | None, call: _mobula.StreamCall) -> None:
        loop = self.loops[group]
        loop.loop.call_soon_threadsafe(lambda: loop.begin(loop.stream(call), lambda _: True))


class ThreadRunner(Runner):
    """Runs the calls on threads."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.pools = {
            group: ThreadPoolExecutor(count, thread_name_prefix=f"mobula-{group or 'calls'}")
            for group, count in self.groups.items()
        }

    def _begin(self, group: str | None, call: _Call) -> None:
        self.pools[group].submit(self._run, call)

    def _begin_stream(self, group: str | None, call: _mobula.StreamCall) -> None:
        self.pools[group].submit(self._stream, call)

    def _run(self, call: _Call) -> None:
        set_running_call(call.running)
        if not call.reply.begin():
            # It was cancelled while it waited for a thread.
            call.reply.fail(TaskCancelledError("the call was cancelled"))
            return
        try:
            result = call.method(*call.args, **call.kwargs)
        except BaseException as error:
            call.reply.fail(error)
        else:
            call.reply.give(result)

    def _stream(self, call: _mobula.StreamCall) -> None:
        set_running_call(call.running())
        call.run()


def runner(description: dict[str, Any]) -> Runner:
    """Return the runner of an actor that has several calls under way."""
    return AsyncRunner(description) if description["async"] else ThreadRunner(description)
