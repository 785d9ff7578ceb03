"""Errors of ``mobula.util.state``."""

from __future__ import annotations

__all__ = ["RayStateApiException"]


class RayStateApiException(Exception):
    """In Ray, the error of a service that does not answer. Nothing raises it here."""
