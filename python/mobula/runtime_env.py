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

    def env_vars(self) -> dict[str, str]:
        """Return the variables."""
        return dict(self.get("env_vars", {}))

    def working_dir(self) -> str | None:
        """Return the directory."""
        found: str | None = self.get("working_dir")
        return found

    def py_modules(self) -> list[Any]:
        """Return the modules."""
        return list(self.get("py_modules", []))

    def to_dict(self) -> dict[str, Any]:
        """Return the same as a plain dictionary."""
        return dict(self)


class RuntimeEnvConfig(dict[str, Any]):
    """A dictionary for the key ``config`` of an environment. It has no effect: nothing is installed."""

    def __init__(
        self, setup_timeout_seconds: int = 600, eager_install: bool = True, log_files: list[str] | None = None
    ) -> None:
        super().__init__(
            setup_timeout_seconds=setup_timeout_seconds, eager_install=eager_install, log_files=log_files or []
        )


__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
