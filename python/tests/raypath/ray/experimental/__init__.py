"""The package ray.experimental of Ray."""
