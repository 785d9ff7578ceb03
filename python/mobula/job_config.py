"""What a program says about itself when it starts a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class JobConfig:
    """Options for ``init(job_config=…)``.

    Args:
        code_search_path: Directories in which workers look for modules, before all others.
        runtime_env: The environment of workers, where ``init`` names none.
        metadata: Notes of the program about itself. They have no effect.
        ray_namespace: The default namespace of named actors, where ``init`` names none.
    """

    def __init__(
        self,
        code_search_path: Sequence[str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        ray_namespace: str | None = None,
        **_: Any,
    ) -> None:
        if isinstance(code_search_path, str):
            raise ValueError("The type of code search path is incorrect: a list of directories")
        self.code_search_path = list(code_search_path or ())
        self.runtime_env, self.metadata, self.ray_namespace = runtime_env, dict(metadata or {}), ray_namespace

    def set_metadata(self, key: str, value: str) -> None:
        """Note something about the program."""
        self.metadata[key] = value

    def set_ray_namespace(self, ray_namespace: str) -> None:
        """Set the default namespace of named actors."""
        self.ray_namespace = ray_namespace

    def set_runtime_env(self, runtime_env: dict[str, Any] | None) -> None:
        """Set the environment of workers."""
        self.runtime_env = runtime_env
