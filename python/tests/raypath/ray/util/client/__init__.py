"""The package ray.util.client of Ray."""
