"""``Process`` with the interface of the standard library's ``multiprocessing``."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import mobula
from mobula import ActorHandle, ObjectRef
from mobula.exceptions import RayActorError


class _Runner:
    """What runs in the process."""

    def pid(self) -> int:
        return os.getpid()

    def run(self, process: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Run the function. Returns the exit code that a process of its own would have."""
        try:
            process(*args, **kwargs)
        except SystemExit as error:
            if error.code is None or isinstance(error.code, int):
                return error.code or 0
            print(error.code, file=sys.stderr)
            return 1
        except BaseException:
            traceback.print_exc()
            return 1
        return 0


class Process:
    """A function that runs in a process of its own. Functions need not be importable.

    ::

        from mobula.multiprocessing import Process

        def work(number):
            print(number)

        process = Process(target=work, args=(1,))
        process.start()
        process.join()
        assert process.exitcode == 0
    """

    def __init__(
        self,
        group: None = None,
        target: Callable[..., Any] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        if group is not None:
            raise ValueError("group cannot be given: None, as in multiprocessing")
        self._target, self._args, self._kwargs = target, tuple(args), dict(kwargs or {})
        self.name = name or f"Process-{id(self):x}"
        # All processes end with the session.
        self.daemon = bool(daemon)
        self._actor: ActorHandle | None = None
        self._code: ObjectRef[int] | None = None
        self._pid: int | None = None
        self._exitcode: int | None = None
        self._ended_by: int | None = None

    def run(self) -> None:
        """Call the function. A subclass may do something else here."""
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def start(self) -> None:
        """Start the process."""
        if self._actor is not None:
            raise AssertionError("cannot start a process twice")
        self._actor = mobula.remote(num_cpus=0)(_Runner).remote()
        self._pid = mobula.get(self._actor.pid.remote())
        if type(self) is Process:
            call: tuple[Any, ...] = (self._target or _nothing, self._args, self._kwargs)
        else:
            # The attributes of a subclass are sent with it, those of the running process are not.
            call = (_run_copy, (type(self), self._state()), {})
        self._code = self._actor.run.remote(*call)

    def _state(self) -> dict[str, Any]:
        return {**vars(self), "_actor": None, "_code": None}

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process is over, or so many seconds."""
        if self._code is None:
            raise AssertionError("can only join a started process")
        mobula.wait([self._code], timeout=None if timeout is None else max(timeout, 0))
        self._look()

    def _look(self) -> None:
        """Take the exit code, if it is there."""
        if self._exitcode is not None or self._code is None or not self._code.is_ready():
            return
        try:
            self._exitcode = mobula.get(self._code)
        except RayActorError as error:
            found = re.search(r"exited with code (\d+)", str(error))
            self._exitcode = int(found[1]) if found else -(self._ended_by or signal.SIGKILL)
        # The process ends with its last handle.
        self._actor = self._code = None

    def is_alive(self) -> bool:
        """Whether the process was started and is not over."""
        self._look()
        return self._code is not None

    @property
    def exitcode(self) -> int | None:
        """``None`` while it runs; 0; 1 after an exception; the code of ``sys.exit``; or the negative of a signal."""
        self._look()
        return self._exitcode

    @property
    def pid(self) -> int | None:
        """The number of the process, once it is started."""
        return self._pid

    ident = pid

    def terminate(self) -> None:
        """End the process by ``SIGTERM``."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process by ``SIGKILL``."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._code is None and self._exitcode is None:
            raise ValueError("the process was not started")
        if self.is_alive() and self._actor is not None:
            self._ended_by = number
            mobula.kill(self._actor)

    def close(self) -> None:
        """Forget the process, which must be over."""
        if self.is_alive():
            raise ValueError(
                "Cannot close a process while it is still running. You should first call join() or terminate()."
            )

    def __repr__(self) -> str:
        state = (
            "initial" if self._pid is None else "started" if self.is_alive() else f"stopped exitcode={self._exitcode}"
        )
        return f"<Process name={self.name!r} pid={self._pid} {state}>"


def _nothing() -> None:
    pass


def _run_copy(cls: type[Process], state: dict[str, Any]) -> None:
    process = cls.__new__(cls)
    vars(process).update(state)
    process.run()
