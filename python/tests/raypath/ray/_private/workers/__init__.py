"""The package ray._private.workers of Ray."""
