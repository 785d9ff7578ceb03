"""The module ray._private.serialization of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray._private.serialization")
