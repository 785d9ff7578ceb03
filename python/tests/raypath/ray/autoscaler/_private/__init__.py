"""The package ray.autoscaler._private of Ray."""
