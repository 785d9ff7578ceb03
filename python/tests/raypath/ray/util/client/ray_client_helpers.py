"""The module ray.util.client.ray_client_helpers of Ray, of which mobula has nothing."""

from ray._private._absent import absent

__getattr__ = absent("ray.util.client.ray_client_helpers")
