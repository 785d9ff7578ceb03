"""The old name of ray.util.state."""

from mobula.util.state import *  # noqa: F403
