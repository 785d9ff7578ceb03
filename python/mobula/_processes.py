"""Processes that stay, and share work: what the pools and executors of the standard library's interfaces stand on.

Each process is an actor, which does one piece of work at a time. A piece goes to a process only when that has nothing
else to do, so that no piece waits behind a long one while another process is free. The pieces that come next are put
into the store meanwhile. Only a piece of many items may wait at a process, behind one other, and only where the piece
before took a short time: such a process goes on at once.

One thread of the program sends and receives. It sleeps while nothing happens.
"""

from __future__ import annotations

import _thread
import functools
import io
import itertools
import os
import pickle
import select
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle

import mobula
from mobula import _mobula
from mobula._methods import OF_CORE
from mobula.exceptions import ActorDiedError, RaySystemError, RayTaskError

# Longer pickles of functions travel through the store.
_SHORT_BYTES_MAX = 1024
# So many items take long to pickle.
_MANY_ITEMS = 1000
# A piece that took longer is a long one.
_SHORT_S = 0.2


def on_new_thread(work: Callable[[], None]) -> None:
    """Do something on a new thread: for finalizers, which the collector runs on any thread, with any lock held."""
    _thread.start_new_thread(work, ())


class Terminated(RaySystemError, RuntimeError):
    """The processes were ended before the work was done."""


class Kind:
    """What a process does with the items of a piece of work."""

    MAP = "map"
    STARMAP = "starmap"
    APPLY = "apply"


class Work:
    """A piece of work: a function, and what to call it with."""

    __slots__ = ("function", "has_many", "items", "kind")

    def __init__(self, function: Sent, kind: str, items: Any) -> None:
        # With `Kind.APPLY` the items are the positional arguments and those with names.
        self.function, self.kind, self.items = function, kind, items
        self.has_many = kind is not Kind.APPLY and len(items) >= _MANY_ITEMS

    def begins(self) -> bool:
        """Whether the work is still wanted. Called once, before it goes to a process."""
        return True

    def ends(self, result: Any, error: BaseException | None) -> None:
        """Take the result: a list, or with ``Kind.APPLY`` the value."""


class Sent:
    """A function as it goes to the processes: pickled once, for all the pieces that it is called in."""

    __slots__ = ("is_kept", "pickled")

    def __init__(self, function: Callable[..., Any]) -> None:
        pickled = cloudpickle.dumps(function)
        self.pickled: Any = pickled if len(pickled) <= _SHORT_BYTES_MAX else mobula.put(pickled)
        # Other callables may have a state, which is sent anew with each piece, as the standard library does.
        self.is_kept = isinstance(function, types.FunctionType | types.BuiltinFunctionType)


class Process:
    """What runs in each process."""

    def __init__(self, initializer: bytes | None, initargs: Iterable[Any]) -> None:
        self._load_kept = functools.lru_cache(maxsize=64)(_load)
        if initializer is not None:
            _load(initializer)(*initargs)

    def run(self, pickled: bytes, is_kept: bool, kind: str, items: Any) -> Any:
        function = self._load_kept(pickled) if is_kept else _load(pickled)
        if kind == Kind.MAP:
            return list(map(function, items))
        if kind == Kind.STARMAP:
            return list(itertools.starmap(function, items))
        args, kwargs = items
        return function(*args, **kwargs)


# The global variables of the program's `__main__`, in a process: one dictionary for all functions that come from there,
# so that what an initializer sets is what the other functions read.
_main_globals: dict[str, Any] = {"__name__": "__main__"}


def _make_function(code: types.CodeType, variables: dict[str, Any], *rest: Any) -> types.FunctionType:
    if variables.get("__name__") == "__main__":
        for name, value in variables.items():
            _main_globals.setdefault(name, value)
        variables = _main_globals
    made = cloudpickle.cloudpickle._make_function(code, variables, *rest)
    return made  # type: ignore[no-any-return]


def _set_function_state(function: types.FunctionType, state: tuple[Any, dict[str, Any]]) -> None:
    attributes, slots = state
    if function.__globals__ is _main_globals:
        # Variables have the values that they had when the first function came, or those that were set here since.
        for name, value in slots.pop("__globals__").items():
            _main_globals.setdefault(name, value)
        slots["__globals__"] = {}
    cloudpickle.cloudpickle._function_setstate(function, (attributes, slots))


class _Unpickler(pickle.Unpickler):
    """Reads functions of ``__main__`` so that they share their global variables."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "cloudpickle.cloudpickle":
            if name == "_make_function":
                return _make_function
            if name == "_function_setstate":
                return _set_function_state
        return super().find_class(module, name)


def _load(pickled: bytes) -> Callable[..., Any]:
    return _Unpickler(io.BytesIO(pickled)).load()  # type: ignore[no-any-return]


class _Place:
    """A process, as the program knows it."""

    __slots__ = ("actor", "calls", "is_dead", "numbers", "run")

    def __init__(self, actor: _mobula.Actor) -> None:
        self.actor, self.is_dead = actor, False
        self.run = _mobula.PreparedMethod(actor, "run", 1, 1, OF_CORE, 0, sys.maxsize, None)
        # How many pieces it got, and the numbers of those that it has.
        self.calls = 0
        self.numbers: list[int] = []


class _Running:
    """A piece of work that a process has."""

    __slots__ = ("_waiting", "place", "reference", "since", "work")

    def __init__(self, place: _Place, work: Work) -> None:
        self.place, self.work, self.since = place, work, time.monotonic()
        self.reference: mobula.ObjectRef[Any] = place.run(
            work.function.pickled, work.function.is_kept, work.kind, work.items
        )
        self._waiting = _mobula.Waiting(self.reference)

    def is_over(self, notifier: _mobula.Notifier, number: int) -> bool:
        """Whether it is done. If not, the notifier notes the number when it may be."""
        try:
            return bool(self._waiting.poll(notifier, number))
        except Exception:
            # It has failed; getting the result says how.
            return True


class Processes:
    """A number of processes that share work."""

    def __init__(
        self,
        count: int,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        calls_max: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.count, self._calls_max = count, calls_max
        self._class = mobula.remote(**(options or {"num_cpus": 0}))(Process)
        pickled = None if initializer is None else cloudpickle.dumps(initializer)
        self._arguments = (pickled, tuple(initargs))
        self._functions: weakref.WeakKeyDictionary[Callable[..., Any], Sent] = weakref.WeakKeyDictionary()
        self._notifier = _mobula.Notifier()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._bell).atexit = False
        self._numbers = itertools.count(1)
        # Can be got as long as the session lives.
        self._sign = mobula.put(None)
        # Guards what follows. Nothing of the program runs while it is held: no pickling, no callback.
        self._lock = threading.Lock()
        self._idle: list[_Place] = []
        self._running: dict[int, _Running] = {}
        # Work that no process has yet: the next pieces, and where the later ones come from.
        self._ahead: deque[Work] = deque()
        self._sources: deque[Iterator[Work]] = deque()
        self._early: deque[int] = deque()
        self._feeders = 0
        self._is_closed = self._is_terminated = False
        self._thread: threading.Thread | None = None
        try:
            for _ in range(count):
                self._idle.append(self._start())
        except BaseException:
            self.terminate()
            raise

    def _start(self) -> _Place:
        return _Place(self._class.remote(*self._arguments)._mobula_actor)

    def sent(self, function: Callable[..., Any]) -> Sent:
        """Return the function as it goes to the processes.

        A function is pickled at its first use here, with the values that it refers to.
        """
        if not isinstance(function, types.FunctionType):
            return Sent(function)
        sent = self._functions.get(function)
        if sent is None:
            sent = self._functions[function] = Sent(function)
        return sent

    def wait_until_ready(self) -> None:
        """Wait until all processes are there, before they get work. An exception of an initializer is raised here."""
        check = ("__ray_ready__", 1, 1, OF_CORE, 0, 0, None)
        ready = [_mobula.PreparedMethod(place.actor, *check) for place in self._idle]
        _mobula.get([is_ready() for is_ready in ready], None)

    def submit(self, source: Iterator[Work], *, from_feeder: bool = False) -> None:
        """Have work done.

        The source must not run code of the program: it is read where a lock is held, when a process needs work.
        """
        with self._lock:
            if not from_feeder:
                self._check_is_open()
            elif self._is_terminated:
                return
            self._sources.append(source)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="mobula-processes", daemon=True)
                self._thread.start()
        while (place := self._take_idle()) is not None:
            if not self._send_next(place):
                break
        if self._sources:
            self._ring()

    def _check_is_open(self) -> None:
        if self._is_closed:
            raise ValueError("Pool not running")

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def _take_idle(self) -> _Place | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _take(self) -> Work | None:
        """The next piece. The lock is held."""
        if self._ahead:
            return self._ahead.popleft()
        return self._take_from_sources()

    def _take_from_sources(self) -> Work | None:
        while self._sources:
            work = next(self._sources[0], None)
            if work is not None:
                return work
            self._sources.popleft()
        return None

    def _send_next(self, place: _Place) -> bool:
        """Give a process its next piece, if there is one."""
        while True:
            with self._lock:
                work = None if self._is_terminated else self._take()
                if work is None:
                    self._idle.append(place)
                    return False
            try:
                if work.begins():
                    if self._calls_max is not None and place.calls >= self._calls_max:
                        place = self._start()
                    self._send(place, work)
                    return True
            except Exception as error:
                # Its arguments cannot be pickled, or there is no session any more.
                work.ends(None, error)
            except BaseException as error:
                with self._lock:
                    self._idle.append(place)
                work.ends(None, error)
                raise

    def _send_behind(self, place: _Place) -> None:
        """Give a process that has one piece another one, which waits there, if it has many items."""
        with self._lock:
            may_wait = self._calls_max is None and len(place.numbers) == 1 and not self._is_terminated
            if not (may_wait and self._ahead and self._ahead[0].has_many):
                return
            work = self._ahead.popleft()
        try:
            if work.begins():
                self._send(place, work)
        except Exception as error:
            work.ends(None, error)

    def _send(self, place: _Place, work: Work) -> None:
        running = _Running(place, work)
        number = next(self._numbers)
        with self._lock:
            is_dead, is_terminated = place.is_dead, self._is_terminated
            if not is_dead:
                self._running[number] = running
                place.calls += 1
                place.numbers.append(number)
        if is_dead:
            # It had died before, and the piece has not begun.
            self._send(self._start(), work)
        elif is_terminated:
            # It was ended in between, and did not know of this piece.
            self.terminate()
        elif running.is_over(self._notifier, number):
            self._early.append(number)
            self._ring()

    def _serve(self) -> None:
        """What the thread does."""
        events = select.poll()
        events.register(self._notifier.fileno(), select.POLLIN)
        events.register(self._bell, select.POLLIN)
        while True:
            for number in self._notifier.take():
                running = self._running.get(number)
                if running is not None and running.is_over(self._notifier, number):
                    self._end(number)
            while self._early:
                self._end(self._early.popleft())
            self._look_ahead()
            with self._lock:
                if self._is_closed and not (self._running or self._ahead or self._sources or self._feeders):
                    # The processes end with their handles.
                    self._idle.clear()
                    return
            events.poll()
            try:
                os.eventfd_read(self._bell)
            except BlockingIOError:
                pass

    def _end(self, number: int) -> None:
        with self._lock:
            running = self._running.pop(number, None)
            if running is None:
                return
            place, work = running.place, running.work
            place.numbers.remove(number)
        # First the next piece, because reading a long result takes time.
        if not place.numbers:
            self._send_next(place)
        if time.monotonic() - running.since < _SHORT_S:
            self._send_behind(place)
        try:
            result = _mobula.get(running.reference, None)
        except BaseException as error:
            # A function that raises the error of another actor's death is of this class, too, and its process lives.
            if isinstance(error, ActorDiedError) and not isinstance(error, RayTaskError):
                self._replace(place)
                work.ends(None, error)
            else:
                work.ends(None, _unwrapped(error))
        else:
            work.ends(result, None)

    def _replace(self, place: _Place) -> None:
        """Start a process in the place of one that has died. Calls that were sent to that since have not begun."""
        with self._lock:
            place.is_dead = True
            unbegun = [self._running.pop(number) for number in place.numbers if number in self._running]
            place.numbers.clear()
            if not unbegun and place not in self._idle:
                # Another thread is about to send it a piece, and starts the process.
                return
            if place in self._idle:
                self._idle.remove(place)
            if self._is_terminated:
                return
        try:
            if not self.is_alive():
                raise RaySystemError("the session of these processes has ended")
            fresh = self._start()
        except Exception as error:
            # There is no session any more, so no work can be done.
            self.terminate(error)
            for running in unbegun:
                running.work.ends(None, error)
            return
        for running in unbegun:
            self._send(fresh, running.work)
        if not unbegun:
            self._send_next(fresh)

    def _look_ahead(self) -> None:
        """Put the next pieces into the store."""
        while True:
            with self._lock:
                work = self._take_from_sources() if len(self._ahead) < self.count else None
            if work is None:
                return
            if work.has_many:
                try:
                    work.items = mobula.put(work.items)
                except Exception:
                    # Sending it says so again.
                    pass
            with self._lock:
                self._ahead.append(work)
            place = self._take_idle()
            if place is not None:
                self._send_next(place)

    def feed(self, feed: Callable[[], None]) -> None:
        """Run what submits work, and runs code of the program meanwhile, in a thread. ``join`` waits for it."""
        with self._lock:
            self._check_is_open()
            self._feeders += 1

        def run() -> None:
            try:
                feed()
            finally:
                with self._lock:
                    self._feeders -= 1
                self._ring()

        threading.Thread(target=run, name="mobula-feeder", daemon=True).start()

    @property
    def is_closed(self) -> bool:
        """Whether no more work is taken."""
        return self._is_closed

    @property
    def is_terminated(self) -> bool:
        """Whether the processes were ended."""
        return self._is_terminated

    def is_alive(self) -> bool:
        """Whether work can be done: the session lives, and the processes were not ended."""
        try:
            mobula.get(self._sign)
        except Exception:
            return False
        return not self._is_closed or (self._thread is not None and not self._is_terminated)

    def check_is_open(self) -> None:
        """Raise ``ValueError`` if no more work is taken."""
        with self._lock:
            self._check_is_open()

    def close(self) -> None:
        """Take no more work. The processes end when all work is done."""
        with self._lock:
            self._is_closed = True
            if self._thread is None:
                self._idle.clear()
        self._ring()

    def drop_waiting(self) -> list[Work]:
        """Take back what no process has yet."""
        dropped = []
        with self._lock:
            while (work := self._take()) is not None:
                dropped.append(work)
        return dropped

    def terminate(self, error: BaseException | None = None) -> None:
        """End the processes at once. Work that is not done fails."""
        with self._lock:
            self._is_closed = self._is_terminated = True
            running = list(self._running.values())
            places = [*self._idle, *(one.place for one in running)]
            self._running.clear()
            self._idle.clear()
        for place in places:
            try:
                place.actor.kill(True)
            except Exception:
                # It has ended, or the session has.
                pass
        dropped = [one.work for one in running] + self.drop_waiting()
        for work in dropped:
            work.ends(None, error or Terminated("the processes were terminated before the work was done"))
        self._ring()

    def join(self) -> None:
        """Wait until all work is done, after ``close`` or ``terminate``."""
        if self._thread is not None:
            self._thread.join()


def _unwrapped(error: BaseException) -> BaseException:
    """The exception that a function raised, whose cause says where."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        cause = error.cause
        cause.__cause__ = RayTaskError(error.function_name, error.traceback_str, None, error.pid)
        return cause
    return error


def report(error: BaseException) -> None:
    """Say that a callback of the program raised."""
    hook = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    threading.excepthook(hook)


def count_of_cpus() -> int:
    """The CPUs of the session, which is started if there is none: so many processes there are by default."""
    if not mobula.is_initialized():
        mobula.init()
    return max(1, int(mobula.cluster_resources().get("CPU", 1)))


def check_count(count: Any, name: str) -> int:
    """A number of processes that was given. ``None``: as many as CPUs."""
    if count is None:
        return count_of_cpus()
    if count < 1:
        raise ValueError(f"{name} cannot be {count}: at least 1")
    return int(count)
