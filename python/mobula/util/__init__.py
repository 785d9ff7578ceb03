"""What is useful on top of tasks and actors, with Ray's names."""

from mobula._serialization import deregister_serializer, register_serializer
from mobula.util.actor_pool import ActorPool

__all__ = ["ActorPool", "deregister_serializer", "register_serializer"]
