"""The context of a process, under its name in Ray."""

from mobula._context import RuntimeContext, get_runtime_context

__all__ = ["RuntimeContext", "get_runtime_context"]
