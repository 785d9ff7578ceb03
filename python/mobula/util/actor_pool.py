"""A pool of actors that share work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import mobula
from mobula import ActorHandle, ObjectRef


class ActorPool:
    """Hands work to actors, one call at a time to each.

    ::

        import mobula as ray
        from mobula.util import ActorPool

        @ray.remote
        class Worker:
            def double(self, value):
                return 2 * value

        pool = ActorPool([Worker.remote() for _ in range(4)])
        doubled = list(pool.map(lambda actor, value: actor.double.remote(value), range(100)))
        assert doubled[:3] == [0, 2, 4]
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle = list(actors)
        # The running calls: the actor of each result, and the number of its submission.
        self._actors: dict[ObjectRef[Any], ActorHandle] = {}
        self._numbers: dict[ObjectRef[Any], int] = {}
        self._refs: dict[int, ObjectRef[Any]] = {}
        # The references to get for each: itself, or the list that it is the first of.
        self._wanted: dict[ObjectRef[Any], Any] = {}
        self._next_submission = 0
        self._next_return = 0
        # The calls that wait for an actor.
        self._pending_submits: list[tuple[Callable[[ActorHandle, Any], ObjectRef[Any]], Any]] = []

    def submit(self, fn: Callable[[ActorHandle, Any], ObjectRef[Any]], value: Any) -> None:
        """Have an actor do ``fn(actor, value)``, now or when one is free."""
        if not self._idle:
            self._pending_submits.append((fn, value))
            return
        actor = self._idle.pop()
        found = fn(actor, value)
        # The results of a method that has several are one: its actor is free with all of them.
        ref = found[0] if isinstance(found, list) else found
        self._wanted[ref] = found
        self._actors[ref], self._numbers[ref] = actor, self._next_submission
        self._refs[self._next_submission] = ref
        self._next_submission += 1

    def has_next(self) -> bool:
        """Whether a result is still to be got."""
        return bool(self._refs or self._pending_submits)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Wait for the next result, in the order of submission."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next_return >= self._next_submission:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        ref = self._refs[self._next_return]
        is_late = timeout is not None and not mobula.wait([ref], timeout=timeout)[0]
        if is_late and not ignore_if_timedout:
            raise TimeoutError("Timed out waiting for result")
        self._next_return += 1
        self._free(ref)
        if is_late:
            del self._wanted[ref]
            raise TimeoutError(f"Timed out waiting for result. The task {ref} has been ignored.")
        return mobula.get(self._wanted.pop(ref))

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Wait for any result."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        ready, _ = mobula.wait(list(self._actors), num_returns=1, timeout=timeout)
        if not ready:
            raise TimeoutError("Timed out waiting for result")
        self._next_return = max(self._next_return, self._numbers[ready[0]] + 1)
        self._free(ready[0])
        return mobula.get(self._wanted.pop(ready[0]))

    def _free(self, ref: ObjectRef[Any]) -> None:
        """Give the actor of this result back to the pool."""
        del self._refs[self._numbers.pop(ref)]
        self._return(self._actors.pop(ref))

    def _return(self, actor: ActorHandle) -> None:
        self._idle.append(actor)
        if self._pending_submits:
            self.submit(*self._pending_submits.pop(0))

    def map(self, fn: Callable[[ActorHandle, Any], ObjectRef[Any]], values: Iterable[Any]) -> Iterator[Any]:
        """Do ``fn(actor, value)`` for each value, and give the results in order."""
        self._begin(fn, values)
        return self._results(self.get_next)

    def map_unordered(self, fn: Callable[[ActorHandle, Any], ObjectRef[Any]], values: Iterable[Any]) -> Iterator[Any]:
        """Do ``fn(actor, value)`` for each value, and give the results as they come."""
        self._begin(fn, values)
        return self._results(self.get_next_unordered)

    def _begin(self, fn: Callable[[ActorHandle, Any], ObjectRef[Any]], values: Iterable[Any]) -> None:
        # Calls that were submitted before run, and their results are not used.
        while self._refs:
            ref = next(iter(self._refs.values()))
            del self._refs[self._numbers.pop(ref)]
            del self._wanted[ref]
            self._return(self._actors.pop(ref))
        self._next_return = self._next_submission
        for value in values:
            self.submit(fn, value)

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def has_free(self) -> bool:
        """Whether an actor has nothing to do."""
        return bool(self._idle) and not self._pending_submits

    def pop_idle(self) -> ActorHandle | None:
        """Take an actor out of the pool, if one has nothing to do."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Put an actor into the pool."""
        if actor in self._idle or actor in self._actors.values():
            raise ValueError("Actor already belongs to current ActorPool")
        self._return(actor)
