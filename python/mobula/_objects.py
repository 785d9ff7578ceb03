"""Objects: ``put``, ``get``, ``wait``, ``cancel``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mobula import _mobula
from mobula._mobula import ObjectRef
from mobula._session import cluster, ensure
from mobula._stream import ObjectRefGenerator

if TYPE_CHECKING:
    from mobula._actor import ActorHandle

T = TypeVar("T")


def put(value: T, *, _owner: ActorHandle | None = None, _tensor_transport: str | None = None) -> ObjectRef[T]:
    """Copy a value into the store, and return a reference to it.

    The memory of arrays and of other buffers is copied once. No message, no system call while the store has room. ::

        import mobula as ray
        import numpy as np

        ref = ray.put(np.arange(1_000_000))
        total = ray.remote(lambda array: int(array.sum()))
        assert ray.get([total.remote(ref) for _ in range(3)]) == [499_999_500_000] * 3  # all read one copy

    Args:
        value: The value.
        _owner: No effect: an object lives as long as any process has a reference to its value.
        _tensor_transport: ``None`` or ``"object_store"``: all values lie in the store.

    Raises:
        TypeError: The value is a reference, or cannot be pickled.
        mobula.exceptions.ObjectStoreFullError: The store has no room.
    """
    if not _mobula.is_initialized():
        of_ray = ensure()
        if of_ray is not None:
            others = {"_owner": _owner, "_tensor_transport": _tensor_transport}
            others = {name: other for name, other in others.items() if other is not None}
            return of_ray.done(of_ray.ray.put, value, **others)  # type: ignore[no-any-return]
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an ray.ObjectRef is not allowed. If you really want to do this, you can wrap the "
            "ray.ObjectRef in a list and call 'put' on it."
        )
    if _owner is not None or _tensor_transport is not None:
        _check_put(_owner, _tensor_transport)
    return _mobula.put(value)


def _check_put(owner: Any, tensor_transport: Any) -> None:
    from mobula._actor import ActorHandle

    if owner is not None and not isinstance(owner, ActorHandle):
        raise TypeError(f"The type of `_owner` should be ActorHandle, and is {type(owner)}")
    if tensor_transport is not None and str(tensor_transport).lower() != "object_store":
        raise NotImplementedError(f"there is no tensor transport {tensor_transport!r}: all values lie in the store")


@overload
def get(object_refs: ObjectRef[T], *, timeout: float | None = None, _use_object_store: bool = False) -> T: ...
@overload
def get(
    object_refs: Sequence[ObjectRef[T]], *, timeout: float | None = None, _use_object_store: bool = False
) -> list[T]: ...
def get(object_refs: Any, *, timeout: float | None = None, _use_object_store: bool = False) -> Any:
    """Wait for the value of a reference, or for those of a list of references, and return them.

    Arrays are views of the store's memory: they are read-only, and keep the object alive. Other values are copies. ::

        import mobula as ray

        @ray.remote
        def divide(x, y):
            return x / y

        assert ray.get(divide.remote(6, 3)) == 2
        assert ray.get([divide.remote(x, 2) for x in range(3)], timeout=60) == [0, 0.5, 1]
        try:
            ray.get(divide.remote(1, 0))
        except ZeroDivisionError as error:  # it is a RayTaskError, too
            print(error)

    Args:
        object_refs: A reference, or a list of references.
        timeout: The seconds to wait; ``None``: without limit.
        _use_object_store: No effect: all values come from the store.

    Raises:
        mobula.exceptions.RayTaskError: The function raised. The error is of the class of what it raised, too.
        mobula.exceptions.GetTimeoutError: The values were not there within so many seconds.
    """
    if type(object_refs) is ObjectRef:
        return _mobula.get(object_refs, timeout)
    if not _mobula.is_initialized():
        of_ray = ensure()
        if of_ray is not None:
            return of_ray.done(of_ray.ray.get, object_refs, timeout=timeout)
    if isinstance(object_refs, ObjectRefGenerator):
        return object_refs
    if not isinstance(object_refs, Sequence) or isinstance(object_refs, str | bytes):
        raise ValueError(
            f"Invalid type of object refs, {type(object_refs)}, is given. 'object_refs' must either be an ObjectRef or "
            "a list of ObjectRefs. "
        )
    refs = list(object_refs)
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"Attempting to call `get` on the value {ref!r}, which is not an ray.ObjectRef.")
    return _mobula.get(refs, timeout)


@overload
def wait(
    ray_waitables: list[ObjectRef[T]], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]: ...
@overload
def wait(
    ray_waitables: Sequence[ObjectRef[Any] | ObjectRefGenerator[Any]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]: ...
def wait(
    ray_waitables: Any,
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """Wait until so many references are ready, or the time has passed.

    Returns the ready ones, at most ``num_returns``, and the others, each in the order in which they were given. A
    reference whose function failed is ready; a generator is ready when its next item is there, or its end. ::

        import mobula as ray

        @ray.remote
        def square(x):
            return x * x

        waiting = [square.remote(x) for x in range(5)]
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=60)
            print(ray.get(ready))

    Raises:
        ValueError: A reference twice, none, or more wanted than given.
        TypeError: Something else than a list of references.
    """
    of_ray = None if _mobula.is_initialized() else ensure()
    if of_ray is not None:
        options = {"num_returns": num_returns, "timeout": timeout, "fetch_local": fetch_local}
        return of_ray.done(of_ray.ray.wait, ray_waitables, **options)  # type: ignore[no-any-return]
    if isinstance(ray_waitables, ObjectRef | ObjectRefGenerator):
        raise TypeError(
            "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got a single ray.ObjectRef or "
            f"ray.ObjectRefGenerator {ray_waitables}"
        )
    if not isinstance(ray_waitables, list):
        raise TypeError(f"wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got {type(ray_waitables)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    streams = False
    for ref in ray_waitables:
        if isinstance(ref, ObjectRefGenerator):
            streams = True
        elif not isinstance(ref, ObjectRef):
            raise TypeError(
                f"wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got list containing {type(ref)}"
            )
    if not ray_waitables:
        return [], []
    if len(ray_waitables) != len(set(ray_waitables)):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(ray_waitables):
        raise ValueError("num_returns cannot be greater than the number of ray_waitables provided to ray.wait.")
    if streams:
        from mobula._waiting import wait_for_any

        return wait_for_any(ray_waitables, num_returns, timeout)
    return _mobula.wait(ray_waitables, num_returns, timeout)


def cancel(
    ray_waitable: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True
) -> None:
    """Cancel the call whose result this is. A call that is over stays over.

    One that has not begun does not begin. One that runs gets ``TaskCancelledError`` where it waits for a result; with
    ``force`` its process is ended. Calls that it has made are cancelled too, unless ``recursive`` is false. ::

        import time
        import mobula as ray

        @ray.remote
        def sleep():
            time.sleep(3600)

        ref = sleep.remote()
        ray.cancel(ref)
        try:
            ray.get(ref)
        except ray.exceptions.TaskCancelledError:
            print("cancelled")
    """
    of_ray = cluster()
    if of_ray is not None:
        of_ray.done(of_ray.ray.cancel, ray_waitable, force=force, recursive=recursive)
        return
    if isinstance(ray_waitable, ObjectRefGenerator):
        ray_waitable = ray_waitable.completed()
    if not isinstance(ray_waitable, ObjectRef):
        raise TypeError(
            f"ray.cancel() only supported for object refs. For actors, try ray.kill(). Got: {type(ray_waitable)}."
        )
    try:
        _mobula.cancel([ray_waitable], force, recursive)
    except ValueError as error:
        if force and "calls of actors" in str(error):
            raise ValueError("force=True is not supported for actor tasks.") from error
        raise
