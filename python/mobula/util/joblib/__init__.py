"""The backend of ``joblib`` with Ray's names: see ``mobula.joblib``."""

__all__ = ["register_ray"]


def register_ray() -> None:
    """Register the backend as ``"ray"``: ``with joblib.parallel_config(backend="ray"): …``."""
    from mobula.joblib import register

    register("ray")
