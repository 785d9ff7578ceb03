"""The module ray.autoscaler._private.constants of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray.autoscaler._private.constants")
