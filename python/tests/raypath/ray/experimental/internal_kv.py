"""The module ray.experimental.internal_kv of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray.experimental.internal_kv")
