"""What a process knows of itself, under the name that it has in Ray."""

from mobula._context import RuntimeContext, get_runtime_context

__all__ = ["RuntimeContext", "get_runtime_context"]
