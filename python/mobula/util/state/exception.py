"""Errors of ``mobula.util.state``."""

from __future__ import annotations

__all__ = ["RayStateApiException"]


class RayStateApiException(Exception):
    """What Ray raises when its services do not answer. Nothing raises it here."""
