"""The environments of worker processes: ``runtime_env``."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

_KNOWN = frozenset({"config", "env_vars", "excludes", "py_modules", "worker_process_setup_hook", "working_dir"})
# Those of Ray that are not there. A value that asks for nothing is accepted.
_ABSENT = frozenset({"conda", "container", "image_uri", "java_jars", "nsight", "pip", "rocprof_sys", "uv"})

# Variables of a worker: directories of modules, and the function that it calls first.
_MODULES = "MOBULA_PYTHON_MODULES"
_HOOK = "MOBULA_PYTHON_SETUP_HOOK"
# The environment as the program gave it, for calls that ask for it.
_TOLD = "MOBULA_PYTHON_RUNTIME_ENV"

# The placement group that captures what the calls of a worker make: its number, and its bundles.
_GROUP = "MOBULA_PYTHON_PLACEMENT_GROUP"

# The environment of the session: workers have it where neither the call nor the actor names another one.
of_session: dict[str, Any] = {}


def set_of_session(environment: dict[str, Any]) -> None:
    """Set the environment of the session that starts now."""
    global of_session
    of_session = dict(environment)


def check(environment: Any) -> None:
    """Check the environment of a worker, and raise if it is invalid."""
    if not isinstance(environment, dict):
        raise TypeError(f"runtime_env cannot be {environment!r}: a dictionary")
    unknown = {name for name in environment.keys() - _KNOWN if name not in _ABSENT or environment[name]}
    if unknown:
        raise ValueError(
            f"runtime_env has no {', '.join(sorted(unknown))} here: it may have {', '.join(sorted(_KNOWN))}. Workers "
            "have the packages of the driver: install what they need there"
        )
    variables = environment.get("env_vars") or {}
    if not isinstance(variables, dict) or not all(isinstance(text, str) for pair in variables.items() for text in pair):
        raise TypeError(f"env_vars cannot be {variables!r}: a dictionary of texts")
    working_dir, modules = environment.get("working_dir"), environment.get("py_modules") or []
    if working_dir is not None and not os.path.isdir(working_dir):
        raise ValueError(f"working_dir cannot be {working_dir!r}: a directory of this machine")
    for module in modules:
        if not os.path.isdir(_path_of(module)):
            raise ValueError(f"py_modules cannot have {module!r}: a module, or its directory")


def capturing_group() -> tuple[int, list[dict[str, float]]] | None:
    """Return the placement group that captures what the calls of this process make: its number, and its bundles."""
    told = os.environ.get(_GROUP)
    if not told:
        return None
    import json

    number, bundles = json.loads(told)
    return number, bundles


def of(
    environment: dict[str, Any] | None,
    capturing: tuple[int, list[dict[str, float]]] | None = None,
    *,
    has_strategy: bool = False,
) -> dict[str, Any]:
    """Return the environment of a worker, merged with that of the session, in the form of the core.

    Args:
        environment: The option ``runtime_env``.
        capturing: The placement group that captures what the worker's calls make.
        has_strategy: Whether the call or actor has a strategy of its own, so that no group captures it.
    """
    found = _merged(environment)
    if capturing is not None:
        import json

        found["env_vars"] = {**(found["env_vars"] or {}), _GROUP: json.dumps(capturing)}
    elif has_strategy and os.environ.get(_GROUP):
        found["env_vars"] = {**(found["env_vars"] or {}), _GROUP: ""}
    return found


def _merged(environment: dict[str, Any] | None) -> dict[str, Any]:
    if not environment and not of_session:
        return {"env_vars": None, "working_dir": None}
    given = {**of_session, **(environment or {})}
    variables = {**(of_session.get("env_vars") or {}), **((environment or {}).get("env_vars") or {})}
    variables = {name: _expanded(text) for name, text in variables.items()}
    working_dir = given.get("working_dir")
    places = [os.path.abspath(working_dir)] if working_dir is not None else []
    places += [os.path.dirname(_path_of(module)) for module in given.get("py_modules") or []]
    if places:
        variables[_MODULES] = os.pathsep.join(dict.fromkeys(places))
    hook = given.get("worker_process_setup_hook")
    if hook is not None:
        variables[_HOOK] = _pickled(hook)
    told = {name: value for name, value in given.items() if name in ("env_vars", "working_dir")}
    if told:
        import json

        variables[_TOLD] = json.dumps({**told, "env_vars": variables}, default=str)
    return {"env_vars": variables or None, "working_dir": working_dir}


def of_this_process() -> dict[str, Any]:
    """Return the environment that the program gave this process."""
    import json

    told = os.environ.get(_TOLD)
    found: dict[str, Any] = json.loads(told) if told else dict(of_session)
    return found


def enter() -> None:
    """Set up the environment of a worker, before its first call."""
    places = os.environ.get(_MODULES)
    if places:
        sys.path[:0] = places.split(os.pathsep)
    hook = os.environ.get(_HOOK)
    if hook:
        import base64
        import pickle

        pickle.loads(base64.b64decode(hook))()


def _path_of(module: Any) -> str:
    path: str = next(iter(module.__path__)) if hasattr(module, "__path__") else os.fspath(module)
    return os.path.abspath(path)


def _expanded(text: str) -> str:
    """Replace each ``${NAME}`` in a text by the value of that variable."""
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], ""), text)


def _pickled(hook: Any) -> str:
    import base64

    if isinstance(hook, str):
        import importlib

        module, _, name = hook.rpartition(".")
        hook = getattr(importlib.import_module(module), name)
    from mobula._serialization import dumps

    return base64.b64encode(dumps(hook)).decode()
