"""What is about actors, under the name that it has in Ray."""

from mobula._actor import ActorClass, ActorClassInheritanceException, ActorHandle, exit_actor

__all__ = ["ActorClass", "ActorClassInheritanceException", "ActorHandle", "exit_actor"]
