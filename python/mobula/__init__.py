"""Tasks, actors and objects for the processes of one machine, on shared memory: Ray's programming model.

Programs that are written for Ray's core run with ``import mobula as ray``::

    import mobula as ray

    @ray.remote
    def square(x):
        return x * x

    assert ray.get([square.remote(i) for i in range(4)]) == [0, 1, 4, 9]

Arrays of numpy that are put, passed or returned lie in shared memory once, and all processes read them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobula import _interpreter as _interpreter
from mobula import exceptions
from mobula._actor import ActorClass, ActorHandle, exit_actor, get_actor, kill, method
from mobula._context import get_runtime_context
from mobula._function import RemoteFunction
from mobula._mobula import ObjectRef, __version__
from mobula._objects import cancel, get, put, wait
from mobula._recorded import mark, span
from mobula._remote import remote
from mobula._session import (
    available_resources,
    cluster_resources,
    get_gpu_ids,
    init,
    is_initialized,
    nodes,
    shutdown,
)
from mobula._stream import DynamicObjectRefGenerator, ObjectRefGenerator

if TYPE_CHECKING:
    from mobula import util
    from mobula._shared import shared
    from mobula.util.state import timeline

__all__ = [
    "ActorClass",
    "ActorHandle",
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "RemoteFunction",
    "__version__",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "exit_actor",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "mark",
    "method",
    "nodes",
    "put",
    "remote",
    "shared",
    "shutdown",
    "span",
    "timeline",
    "util",
    "wait",
]


_LATER = frozenset(
    {
        "actor",
        "cloudpickle",
        "compat",
        "dag",
        "experimental",
        "futures",
        "job_config",
        "joblib",
        "multiprocessing",
        "plasma",
        "remote_function",
        "runtime_context",
        "runtime_env",
        "rust",
        "types",
        "util",
    }
)


_IDS = frozenset({"ActorID", "JobID", "NodeID", "TaskID", "UniqueID", "WorkerID"})


def __getattr__(name: str) -> Any:
    # Workers do without these until somebody asks for them.
    if name == "shared":
        from mobula._shared import shared

        return shared
    if name in _IDS:
        from mobula import _ids

        return getattr(_ids, name)
    if name == "timeline":
        from mobula.util.state import timeline

        return timeline
    if name == "ObjectID":
        # The name that references had in old programs.
        return ObjectRef
    if name in _LATER:
        import importlib

        return importlib.import_module(f"mobula.{name}")
    raise AttributeError(f"module 'mobula' has no attribute {name!r}")
