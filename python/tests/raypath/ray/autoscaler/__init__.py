"""The package ray.autoscaler of Ray."""
