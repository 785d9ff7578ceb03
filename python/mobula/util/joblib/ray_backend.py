"""The class of the backend, under the name that it has in Ray."""

from mobula.joblib import MobulaBackend as RayBackend

__all__ = ["RayBackend"]
