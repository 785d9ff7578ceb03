"""A group of actors of one class, which are called together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mobula
from mobula import ActorHandle, ObjectRef
from mobula.actor import ActorClass


class ActorGroup:
    """Actors of one class. ``group.method.remote(…)`` calls the method of each, and returns a list of references.

    ::

        import mobula as ray
        from mobula.util.actor_group import ActorGroup

        class Worker:
            def __init__(self, name):
                self.name = name

            def step(self, number):
                return f"{self.name} {number}"

        group = ActorGroup(Worker, num_actors=2, init_args=("part",))
        assert ray.get(group.step.remote(1)) == ["part 1", "part 1"]
    """

    def __init__(
        self,
        actor_cls: type,
        num_actors: int = 1,
        num_cpus_per_actor: float = 1,
        num_gpus_per_actor: float = 0,
        resources_per_actor: dict[str, float] | None = None,
        init_args: tuple[Any, ...] | None = None,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if num_actors <= 0:
            raise ValueError(f"The provided `num_actors` must be greater than 0. Received num_actors={num_actors}")
        if num_cpus_per_actor < 0 or num_gpus_per_actor < 0:
            raise ValueError("The amounts of CPUs and GPUs of an actor must not be negative")
        self._class: ActorClass[Any] = mobula.remote(
            num_cpus=num_cpus_per_actor, num_gpus=num_gpus_per_actor, resources=resources_per_actor
        )(actor_cls)
        self._methods = {name for name in dir(actor_cls) if callable(getattr(actor_cls, name))}
        self._init_args, self._init_kwargs = init_args or (), init_kwargs or {}
        self.num_actors = num_actors
        self.actors: list[ActorHandle] = []
        self.start()

    def start(self) -> None:
        """Start the actors, if there are none."""
        if self.actors:
            raise RuntimeError("The actors have already been started. Please call `shutdown` first.")
        self.add_actors(self.num_actors)

    def shutdown(self, patience_s: float = 5) -> None:
        """End the actors: when their calls are over, or by force if that takes longer."""
        ends = [actor.__ray_terminate__.remote() for actor in self.actors]
        if patience_s > 0 and ends:
            mobula.wait(ends, num_returns=len(ends), timeout=patience_s)
        for actor in self.actors:
            mobula.kill(actor)
        self.actors = []

    def remove_actors(self, actor_indexes: list[int]) -> None:
        """Drop the actors at these places."""
        self.actors = [actor for place, actor in enumerate(self.actors) if place not in actor_indexes]

    def add_actors(self, num_actors: int) -> None:
        """Start further actors."""
        self.actors += [self._class.remote(*self._init_args, **self._init_kwargs) for _ in range(num_actors)]

    def __len__(self) -> int:
        return len(self.actors)

    def __getitem__(self, place: int) -> ActorHandle:
        return self.actors[place]

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_") or name not in self._methods:
            raise AttributeError(f"the class of the group has no method {name!r}")
        if not self.actors:
            raise RuntimeError("This ActorGroup has been shutdown. Please start it again.")
        return _Method(lambda: self.actors, name)


class _Method:
    """A method of each actor of a group."""

    def __init__(self, actors: Callable[[], list[ActorHandle]], name: str) -> None:
        self._actors, self._name = actors, name

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"ActorGroup methods cannot be called directly. Instead of running 'object.{self._name}()', try "
            f"'object.{self._name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> list[ObjectRef[Any]]:
        """Call the method of each actor."""
        return [getattr(actor, self._name).remote(*args, **kwargs) for actor in self._actors()]


__all__ = ["ActorGroup"]
