"""The package ray.experimental.state of Ray."""
