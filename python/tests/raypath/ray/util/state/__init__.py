"""The module ray.util.state of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray.util.state")
