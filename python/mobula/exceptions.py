"""What ``get`` and the other functions raise, with the names and the order that Ray has."""

from __future__ import annotations

import pickle
from typing import Any


class RayError(Exception):
    """The base of all exceptions here."""


class RayTaskError(RayError):
    """A remote function or method raised. Where it can be, the error is of the class of what was raised, too."""

    def __init__(
        self, function_name: str, traceback_str: str, cause: BaseException | None = None, pid: int | None = None
    ) -> None:
        super().__init__(function_name, traceback_str, cause, pid)
        self.function_name, self.traceback_str, self.cause, self.pid = function_name, traceback_str, cause, pid

    def as_instanceof_cause(self) -> RayTaskError:
        """Return the error as one that is also of the class of its cause."""
        if not isinstance(self.cause, Exception) or isinstance(self.cause, RayTaskError):
            return self
        try:
            dual: RayTaskError = _dual(type(self.cause))(self)
            return dual
        except TypeError:
            # Some classes cannot be derived from together with others.
            return self

    def __str__(self) -> str:
        if not self.function_name:
            return self.traceback_str
        where = f"(pid={self.pid})" if self.pid else ""
        return f"ray::{self.function_name}() {where}\n{self.traceback_str}".rstrip()

    def __reduce__(self) -> Any:
        return (RayTaskError, (self.function_name, self.traceback_str, self.cause, self.pid))


_duals: dict[type[Exception], Any] = {}


def _dual(cause_class: type[Exception]) -> Any:
    """The class of errors that are task errors, and of the class of their cause."""
    found = _duals.get(cause_class)
    if found is not None:
        return found

    class Dual(RayTaskError, cause_class):  # type: ignore[misc, valid-type]
        def __init__(self, error: RayTaskError) -> None:
            self.function_name, self.traceback_str = error.function_name, error.traceback_str
            self.cause, self.pid, self.args = error.cause, error.pid, getattr(error.cause, "args", ())

        def __getattr__(self, name: str) -> Any:
            # Only of what the class itself does not have: the attributes of the cause.
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(self.__dict__["cause"], name)

        def __reduce__(self) -> Any:
            return (_dual_of, (self.function_name, self.traceback_str, self.cause, self.pid))

        __str__ = RayTaskError.__str__

    Dual.__name__ = Dual.__qualname__ = f"RayTaskError({cause_class.__name__})"
    Dual.__module__ = __name__
    return _duals.setdefault(cause_class, Dual)


def _dual_of(*args: Any) -> RayTaskError:
    return RayTaskError(*args).as_instanceof_cause()


class TaskCancelledError(RayError):
    """The call was cancelled."""


class TaskTimedOutError(RayError, TimeoutError):
    """The call reached its ``timeout`` or its ``deadline``, and was cancelled. Ray has no such options."""


class GetTimeoutError(RayError, TimeoutError):
    """The values were not there in time."""


class WorkerCrashedError(RayError):
    """The process that ran the call has died."""


class RayActorError(RayError):
    """The actor cannot carry out the call."""


class ActorDiedError(RayActorError):
    """The actor has ended, and will not come back."""


class ActorUnavailableError(RayActorError):
    """The actor's process has died, and starts again. The call may or may not have been carried out."""


class RaySystemError(RayError):
    """The session cannot do it."""


class ObjectStoreFullError(RayError):
    """The store has no room for the value."""


class OutOfDiskError(RayError):
    """The disk has no room for objects that the store's memory has no room for."""


class ObjectLostError(RayError):
    """The process that owned the object, or was to make it, has died."""


class ObjectFetchTimedOutError(ObjectLostError):
    """Does not occur on one machine; programs name it."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """Does not occur; programs name it."""


class ObjectReconstructionFailedError(ObjectLostError):
    """Does not occur: lost objects are not made again; programs name it."""


class OwnerDiedError(ObjectLostError):
    """Does not occur by itself: see ObjectLostError; programs name it."""


class ObjectFreedError(ObjectLostError):
    """Does not occur: nobody frees an object that is held; programs name it."""


class RuntimeEnvSetupError(RayError):
    """The environment of a call could not be set up."""


class OutOfMemoryError(RayError):
    """The process used too much memory, and was ended."""


class DeadlockError(RayError):
    """The calls wait for each other in a circle, so no result will come. Each of them gets this error.

    Ray has no such error: there, such calls wait for ever.
    """


class PendingCallsLimitExceeded(RayError):
    """So many calls of the handle are pending that this one was not made: ``max_pending_calls``."""


class TaskUnschedulableError(RayError):
    """The call demands more than the session has."""


class ActorUnschedulableError(RayError):
    """The actor demands more than the session has."""


class AsyncioActorExit(RayError):
    """Does not occur; programs name it."""


class ObjectRefStreamEndOfStreamError(RayError):
    """Does not occur: a stream ends with StopIteration; programs name it."""


class CrossLanguageError(RayError):
    """A value of another language."""


class ActorAlreadyExistsError(ValueError, RayError):
    """A living actor of the session has the name already."""


class ActorHandleNotFoundError(ValueError, RayError):
    """Does not occur: a handle of another session is an error of the call; programs name it."""


class OufOfBandObjectRefSerializationException(RayError):
    """Does not occur: a reference that is pickled outside of a value is a TypeError; programs name it."""


class PlasmaObjectNotAvailable(RayError):
    """Does not occur; programs name it."""


class RpcError(RayError):
    """Does not occur: processes share memory, and make no remote procedure calls; programs name it."""

    def __init__(self, message: str = "", rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.message, self.rpc_code = message, rpc_code


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """Does not occur: streams are not made again; programs name it."""


class UserCodeException(RayError):
    """Does not occur; programs name it."""


class UnserializableException(RayError):
    """Does not occur: what cannot be pickled travels as text; programs name it."""


class LocalRayletDiedError(RayError):
    """Does not occur; programs name it."""


class NodeDiedError(RayError):
    """Does not occur: there is one machine; programs name it."""


class AuthenticationError(RayError):
    """Does not occur; programs name it."""


class TaskPlacementGroupRemoved(RayError):
    """The placement group of the call was removed."""


class ActorPlacementGroupRemoved(RayError):
    """The placement group of the actor was removed."""


class RayChannelError(RaySystemError):
    """Does not occur: there are no channels; programs name it."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """Does not occur: there are no channels; programs name it."""


class RayCgraphCapacityExceeded(RaySystemError):
    """Does not occur: there are no compiled graphs; programs name it."""


class RayDirectTransportError(RaySystemError):
    """Does not occur; programs name it."""


_KINDS: dict[str, type[Exception]] = {
    "ActorDiedError": ActorDiedError,
    "ActorPlacementGroupRemoved": ActorPlacementGroupRemoved,
    "ActorUnavailableError": ActorUnavailableError,
    "DeadlockError": DeadlockError,
    "GetTimeoutError": GetTimeoutError,
    "ObjectLostError": ObjectLostError,
    "ObjectStoreFullError": ObjectStoreFullError,
    "OutOfMemoryError": OutOfMemoryError,
    "PendingCallsLimitExceeded": PendingCallsLimitExceeded,
    "RaySystemError": RaySystemError,
    "RuntimeError": RuntimeError,
    "TaskCancelledError": TaskCancelledError,
    "TaskPlacementGroupRemoved": TaskPlacementGroupRemoved,
    "TaskTimedOutError": TaskTimedOutError,
    "TypeError": TypeError,
    "ValueError": ValueError,
    "WorkerCrashedError": WorkerCrashedError,
}


def _of_kind(kind: str, text: str) -> Exception:
    """The exception for an error of the core."""
    if kind == "TaskCancelledError":
        # Programs catch it by either class.
        return RayTaskError("", text, TaskCancelledError(text)).as_instanceof_cause()
    return _KINDS[kind](text)


def _of_task(function: str, pid: int, text: str, pickled: bytes | None) -> Exception:
    """The exception for what a remote function raised."""
    cause = None
    if pickled is not None:
        try:
            cause = pickle.loads(pickled)
        except Exception:
            # Its class is not there in this process. The text says what it was.
            cause = None
    # A function within a function is called as in its definition. The text after a method's name is for its actor.
    function = function.rpartition("<locals>.")[2].partition("\2")[0]
    return RayTaskError(function, text, cause, pid).as_instanceof_cause()


def _raise_of_task(*error: Any) -> None:
    """Raise what a remote function raised."""
    raise _of_task(*error)
