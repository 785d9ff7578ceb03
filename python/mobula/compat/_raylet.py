"""What programs import from Ray's compiled module."""

from mobula import ObjectRef, ObjectRefGenerator
from mobula.exceptions import ObjectRefStreamEndOfStreamError

# Older programs know the generator by these names.
StreamingObjectRefGenerator = DynamicObjectRefGenerator = ObjectRefGenerator

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "ObjectRefStreamEndOfStreamError",
    "StreamingObjectRefGenerator",
]
