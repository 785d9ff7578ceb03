"""The class of remote functions, under the name that it has in Ray."""

from mobula._function import RemoteFunction

__all__ = ["RemoteFunction"]
