"""The environment of a call or an actor, as an object."""

from __future__ import annotations

from typing import Any


class RuntimeEnv(dict[str, Any]):
    """A dictionary for the option ``runtime_env``: ``RuntimeEnv(env_vars={"MODE": "test"})``."""

    def __init__(
        self, *, env_vars: dict[str, str] | None = None, working_dir: str | None = None, **others: Any
    ) -> None:
        given = {"env_vars": env_vars, "working_dir": working_dir, **others}
        super().__init__({name: value for name, value in given.items() if value is not None})


__all__ = ["RuntimeEnv"]
