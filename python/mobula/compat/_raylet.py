"""What programs import from Ray's compiled module."""

from mobula import DynamicObjectRefGenerator, ObjectRef, ObjectRefGenerator
from mobula.exceptions import ObjectRefStreamEndOfStreamError

# Older programs know the generator by this name.
StreamingObjectRefGenerator = ObjectRefGenerator

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "ObjectRefStreamEndOfStreamError",
    "StreamingObjectRefGenerator",
]
