"""The session: its start, its end, and what is in it."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from mobula import _environments, _ids, _mobula

# A worker is this interpreter with the same module path, so it finds what the program imports. Its role follows.
_WORKER = "import sys; sys.path[:] = {path!r}; from mobula._worker import main; main({namespace!r}, {labels!r})"
# The store is this interpreter, too, with the extension module alone: it runs no Python code.
_STORE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_mobula", {file!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.run_role(sys.argv.pop())
"""

# Options of Ray for several machines, for processes that Mobula does not have, or for limits of such processes.
_WITHOUT_EFFECT = frozenset(
    {
        "cgroup_path",
        "configure_logging",
        "dashboard_host",
        "dashboard_port",
        "enable_resource_isolation",
        "include_dashboard",
        "log_to_driver_level",
        "logging_config",
        "logging_format",
        "logging_level",
        "proxy_server_url",
        "system_reserved_cpu",
        "system_reserved_memory",
        "_driver_object_store_memory",
        "_enable_object_reconstruction",
        "_metrics_export_port",
        "_node_ip_address",
        "_node_name",
        "_plasma_directory",
        "_redis_password",
        "_redis_username",
        "_skip_env_hook",
        "_system_config",
        "_temp_dir",
    }
)
# Options that have an effect, and that few programs give.
_SELDOM = frozenset({"job_config", "labels", "_object_spilling_directory", "_tracing_startup_hook"})

# The default namespace of named actors.
namespace = "default"

# The labels of this machine, as `init` was given them.
labels: dict[str, str] = {}


class Context:
    """The result of ``init``. As a context manager it ends the session."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        self.address_info = address_info

    def __repr__(self) -> str:
        return f"Context({self.address_info})"

    @property
    def dashboard_url(self) -> str:
        """Empty: `mobula view` shows a session, and no server of it does."""
        return ""

    def __getitem__(self, name: str) -> Any:
        return self.address_info[name]

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()

    def disconnect(self) -> None:
        """End the session."""
        shutdown()


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    object_store_memory: int | None = None,
    namespace: str | None = None,
    ignore_reinit_error: bool = False,
    log_to_driver: bool | None = True,
    local_mode: bool = False,
    runtime_env: dict[str, Any] | None = None,
    _memory: float | None = None,
    **options: Any,
) -> Context:
    """Start a session (the store, and worker processes, which run the calls of this program), or join one.

    The first call of a function starts a session too, so a program needs ``init`` only for options. The session ends
    with ``shutdown``, or with the program. ::

        import mobula as ray

        with ray.init(num_cpus=2, resources={"disk": 1}, namespace="example"):
            print(ray.cluster_resources())
        assert not ray.is_initialized()

    Args:
        address: ``None`` or ``"local"``: a session of this program alone. ``"auto"``, or the address that
            ``mobula start`` has printed: a session that programs of this user share; ``"auto"`` is the one that was
            started last. ``"ray://host:port"``, ``"ray:auto"``: a cluster of Ray, by
            Ray's own package; ``"ray:local"``: a cluster of this machine alone. Default: the variable
            ``MOBULA_ADDRESS``.
        num_cpus: The number of CPUs for all calls together. Default: those that the program may run on.
        num_gpus: The number of GPUs for all calls together. Default: those that the program may use.
        resources: Other resources, by name, that calls and actors demand.
        object_store_memory: The most memory of objects, in bytes. Objects beyond that go to the disk. Default:
            30 % of the memory.
        namespace: The default namespace of named actors.
        ignore_reinit_error: Whether a second ``init`` is allowed.
        runtime_env: The environment of workers: ``env_vars``, ``working_dir``, ``py_modules``,
            ``worker_process_setup_hook``.
        log_to_driver: Whether the output of workers appears in the output of this program, with a prefix.
        options: Other options of Ray's ``init``. ``job_config`` names a namespace, an environment and directories of
            modules, ``labels`` are those that ``nodes`` shows, and ``_object_spilling_directory`` is the directory of
            objects that the store's memory has no room for. The others have no effect here: they are for several
            machines, the dashboard, logging, and processes that there are none of.

    Raises:
        NotImplementedError: ``_tracing_startup_hook`` was given.
        RuntimeError: There is a session already, or this process is a worker.
        ValueError: An option is invalid.
        ConnectionError: There is no session for ``"auto"``.
    """
    from mobula import _cluster

    address = address or _cluster.address_of_environment()
    if address is not None and _cluster.is_meant(address):
        return _join(
            address,
            ignore_reinit_error,
            options,
            {
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                "resources": resources,
                "namespace": namespace,
                "object_store_memory": object_store_memory,
                "log_to_driver": log_to_driver,
                "runtime_env": runtime_env,
            },
        )
    if local_mode:
        raise RuntimeError("`local_mode` is no longer supported: calls run in workers, which start in milliseconds")
    unknown = options.keys() - _WITHOUT_EFFECT - _SELDOM
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(sorted(unknown))}")
    if options.get("_tracing_startup_hook") is not None:
        raise NotImplementedError("_tracing_startup_hook is not there: only calls of Rust programs carry a trace")
    given = options.get("labels") or {}
    if not isinstance(given, dict) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        raise ValueError(f"labels cannot be {given!r}: a dictionary of texts")
    if _mobula.is_worker():
        if ignore_reinit_error:
            return Context({})
        raise RuntimeError("this is a worker: it is part of its driver's session, and cannot start another")
    if is_initialized():
        if ignore_reinit_error:
            return Context({})
        raise RuntimeError(
            "Maybe you called mobula.init twice by accident? This error can be suppressed by passing in "
            "'ignore_reinit_error=True' or by calling 'mobula.shutdown()' prior to 'mobula.init()'."
        )
    job = options.get("job_config")
    if job is not None:
        namespace, runtime_env = namespace or job.ray_namespace, runtime_env or job.runtime_env
    if runtime_env:
        _environments.check(runtime_env)
    # Calls that are prepared from now on have the environment of this session.
    _environments.set_of_session(runtime_env or {})
    try:
        socket = _mobula.start(
            _worker_command(namespace or "default", given, job.code_search_path if job is not None else ()),
            _store_command(),
            address=address,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=None if _memory is None else int(_memory),
            resources=resources,
            object_store_memory=None if object_store_memory is None else int(object_store_memory),
            log_to_driver=log_to_driver,
            namespace=namespace or "default",
            spill_directory=options.get("_object_spilling_directory"),
        )
    except BaseException as error:
        _environments.set_of_session({})
        if isinstance(error, ValueError) and address == "auto" and str(error).startswith("address cannot be"):
            # As in Ray, where no cluster is found.
            raise ConnectionError(str(error)) from None
        raise
    _set_namespace(namespace or "default")
    _set_labels(given)
    return Context(_address_info(os.fspath(socket)))


def _address_info(socket: str) -> dict[str, Any]:
    """Describe the session. Nothing listens to a network: the address is the store's socket."""
    return {
        "address": socket,
        "gcs_address": socket,
        "metrics_export_port": None,
        "node_id": _ids.of_machine().hex(),
        "node_ip_address": "127.0.0.1",
        "object_store_address": socket,
        "raylet_socket_name": socket,
        "session_dir": os.path.dirname(socket),
        "webui_url": "",
    }


def _join(address: str, ignore_reinit_error: bool, others: dict[str, Any], options: dict[str, Any]) -> Context:
    """Use a cluster of Ray in place of a session."""
    from mobula import _cluster

    if is_initialized():
        if ignore_reinit_error:
            return Context({})
        raise RuntimeError("init was called already: call shutdown before, or pass ignore_reinit_error=True")
    context = _cluster.begin(address, {**options, **others})
    # Functions were prepared for a session.
    _environments.set_of_session({})
    return Context(dict(getattr(context, "address_info", None) or {}))


def _set_namespace(name: str) -> None:
    global namespace
    namespace = name


def _set_labels(given: dict[str, str]) -> None:
    global labels
    labels = dict(given)


def run_command(arguments: list[str]) -> int:
    """Run the command ``mobula``, and return its exit code."""
    return _mobula.run_command(_store_command(), ["mobula", *arguments])


def _store_command() -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _STORE.format(file=_mobula.__file__)]


def _worker_command(namespace: str, labels: dict[str, str], search_path: Sequence[str] = ()) -> list[str]:
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    path = [os.path.abspath(entry) for entry in (*search_path, *sys.path)]
    return [sys.executable, *flags, "-P", "-c", _WORKER.format(path=path, namespace=namespace, labels=labels)]


_starting = threading.Lock()


def ensure() -> ModuleType | None:
    """Start a session if there is none, as Ray does at the first use.

    Returns the module of a cluster, if one is used.
    """
    if _mobula.is_initialized():
        return None
    from mobula import _cluster

    with _starting:
        if not is_initialized():
            init()
    found: ModuleType | None = None if _mobula.is_initialized() else _cluster
    return found


def cluster() -> ModuleType | None:
    """Return the module of a cluster, if one is used."""
    found = sys.modules.get("mobula._cluster")
    return found if found is not None and found.ray is not None else None


def shutdown(_exiting_interpreter: bool = False, *, wait_for_processes: bool = False) -> None:
    """End the session. Actors end first, then workers and the store. References are invalid afterwards.

    Values that the program has got stay valid. Does nothing without a session. ::

        import mobula as ray
        import numpy as np

        array = ray.get(ray.put(np.ones(1_000_000)))
        ray.shutdown()
        assert array.sum() == 1_000_000

    Args:
        wait_for_processes: No effect: the processes of the session are gone when this returns.
    """
    _environments.set_of_session({})
    of_ray = cluster()
    if of_ray is not None:
        of_ray.end()
    _mobula.shutdown()


atexit.register(shutdown)

_has_warned_of_fork = False


def _before_fork() -> None:
    """Warn of arrays that a forked child cannot read: the store's memory is not there."""
    global _has_warned_of_fork
    if _mobula.memory_count() and not _has_warned_of_fork:
        import warnings

        _has_warned_of_fork = True
        warnings.warn(
            "this process forks while it has arrays that lie in the store: reading one of them in the child ends the "
            "child with SIGSEGV. Pass the child a copy (array.copy()), or start it by the method 'spawn'.",
            RuntimeWarning,
            stacklevel=3,
        )


os.register_at_fork(before=_before_fork)


def is_initialized() -> bool:
    """Whether there is a session."""
    return _mobula.is_initialized() or cluster() is not None


def cluster_resources() -> dict[str, float]:
    """Return the resources of the session."""
    of_ray = cluster()
    if of_ray is not None:
        return dict(of_ray.ray.cluster_resources())
    return _mobula.cluster_resources()


def available_resources() -> dict[str, float]:
    """Return the resources that are free at the moment."""
    of_ray = cluster()
    if of_ray is not None:
        return dict(of_ray.ray.available_resources())
    return _mobula.available_resources()


def get_gpu_ids() -> list[int | str]:
    """Return the GPUs that the running call or actor has: their numbers, or their names."""
    of_ray = cluster()
    if of_ray is not None:
        return list(of_ray.ray.get_gpu_ids())
    return [int(name) if name.isdecimal() else name for name in _mobula.gpu_ids()]


def nodes() -> list[dict[str, Any]]:
    """Return the machines of the session: this one, or those of the cluster."""
    of_ray = cluster()
    if of_ray is not None:
        return list(of_ray.ray.nodes())
    name = os.uname().nodename
    return [
        {
            "NodeID": _ids.of_machine().hex(),
            "NodeName": name,
            "Alive": True,
            "alive": True,
            "NodeManagerHostname": name,
            "NodeManagerAddress": "127.0.0.1",
            "Resources": cluster_resources(),
            "Labels": dict(labels),
        }
    ]


def warn_without_effect(option: str, why: str) -> None:
    """Warn that an option has no effect."""
    import warnings

    warnings.warn(f"{option} has no effect: {why}", stacklevel=4)
