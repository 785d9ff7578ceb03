"""The module ray.experimental.state.api of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray.experimental.state.api")
