"""The module ray._private.ray_option_utils of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray._private.ray_option_utils")
