"""Types for annotations, under the name that they have in Ray."""

from mobula._mobula import ObjectRef

__all__ = ["ObjectRef"]
