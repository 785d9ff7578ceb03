"""Programs that run on a cluster of Ray's own package: ``init(address="ray://…")``, or ``MOBULA_ADDRESS=ray:auto``.

There is no session of this package then. Ray gets the functions and classes unchanged, with their options, and the
program gets Ray's own references, handles and generators. Errors become those of this package, so that
``except mobula.exceptions.RayActorError`` catches them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mobula import exceptions
from mobula._options import LIMITS

_COLOUR = re.compile(r"\x1b\[\d*m")
_WHERE = re.compile(r"ray::(.*?)\(\) \(pid=(\d+)")

# Ray, while this process uses it.
ray: Any = None

# Options of `init` that Ray refuses where the cluster is there already.
_OF_A_NEW_CLUSTER = frozenset({"num_cpus", "num_gpus", "object_store_memory", "resources"})

# The classes that Ray's classes replace meanwhile.
_CLASSES = ("ObjectRef", "ObjectRefGenerator")
_own_classes: dict[str, Any] = {}


def is_meant(address: str | None) -> bool:
    """Whether an address is one of Ray."""
    return address is not None and address.startswith("ray:")


def begin(address: str, options: dict[str, Any]) -> Any:
    """Connect to a cluster, or start one of this machine alone (``ray:local``)."""
    global ray
    found = _imported()
    if not found.is_initialized():
        given = address if address.startswith("ray://") else address.removeprefix("ray:")
        options = {name: value for name, value in options.items() if value is not None}
        if given != "local":
            # A cluster that runs has its resources already.
            options = {name: value for name, value in options.items() if name not in _OF_A_NEW_CLUSTER}
        environment = dict(options.pop("runtime_env", None) or {})
        # Code in the workers of Ray finds Ray by this variable.
        environment["env_vars"] = {**environment.get("env_vars", {}), "MOBULA_ADDRESS": "ray:auto"}
        context = found.init(address=given, runtime_env=environment, **options)
    else:
        context = None
    ray = found
    package = sys.modules["mobula"]
    for name in _CLASSES:
        _own_classes[name] = getattr(package, name)
        setattr(package, name, getattr(found, name))
    return context


def end() -> None:
    """Leave the cluster."""
    global ray
    left, ray = ray, None
    if left is None:
        return
    for name, own in _own_classes.items():
        setattr(sys.modules["mobula"], name, own)
    left.shutdown()


def _imported() -> ModuleType:
    if sys.modules.get("ray") is sys.modules["mobula"]:
        raise RuntimeError(
            "the name ray is the package mobula in this process, by mobula.compat, so Ray itself cannot be imported: "
            "run the program without mobula.compat, and with Ray, to use a cluster"
        )
    try:
        import ray as found  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise RuntimeError(
            "an address that begins with ray: needs the package ray, which is not installed: run `pip install ray`, or "
            "leave the address out to run on this machine"
        ) from error
    module: ModuleType = found
    return module


def function(of: Callable[..., Any], options: dict[str, Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """Return what calls a function in the cluster."""
    options = _of_ray(options)
    remote = ray.remote(**options)(of) if options else ray.remote(of)
    return lambda args, kwargs: remote.remote(*args, **kwargs)


def _of_ray(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that Ray does not have, if these mean nothing."""
    for name in LIMITS:
        if options.get(name) is not None:
            raise NotImplementedError(f"a cluster of Ray has no option {name}={options[name]!r}: get with a timeout")
    return {name: value for name, value in options.items() if name not in LIMITS}


def actor(cls: type, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Start an actor in the cluster."""
    for member in list(vars(cls).values()):
        of_method = getattr(member, "__mobula_method__", None)
        if of_method is not None and not isinstance(member, type):
            options_of_ray = _of_ray(of_method)
            if options_of_ray:
                ray.method(**options_of_ray)(member)
    remote = ray.remote(**options)(cls) if options else ray.remote(cls)
    return done(remote.remote, *args, **kwargs)


def done(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of Ray, and raise its errors as those of this package."""
    try:
        return call(*args, **kwargs)
    except ray.exceptions.RayError as error:
        raise _translated(error) from None


def _translated(error: Any) -> BaseException:
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = _translated(error.cause) if isinstance(error.cause, ray.exceptions.RayError) else error.cause
        if isinstance(cause, exceptions.RayError) and not isinstance(cause, exceptions.RayTaskError):
            # As here: a call that was cancelled while it ran.
            return cause
        # The error has the class of its cause, too, and does not always have its own attributes.
        text = _COLOUR.sub("", str(error))
        where = _WHERE.match(text)
        function, pid = (where[1], int(where[2])) if where else ("", None)
        return exceptions.RayTaskError(function, text.partition("\n")[2], cause, pid).as_instanceof_cause()
    for cls in type(error).__mro__:
        own = getattr(exceptions, cls.__name__, None)
        if isinstance(own, type) and issubclass(own, exceptions.RayError):
            return own(str(error))
    raise error


def address_of_environment() -> str | None:
    """Return the address that the environment names."""
    return os.environ.get("MOBULA_ADDRESS") or None
