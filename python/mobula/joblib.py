"""A backend of ``joblib``: importing this module registers it as ``"mobula"``.

::

    import joblib
    import mobula.joblib

    def square(x):
        return x * x

    with joblib.parallel_config(backend="mobula"):
        results = joblib.Parallel(n_jobs=-1)(joblib.delayed(square)(i) for i in range(1_000))
    assert results[-1] == 998_001

``parallel_config(backend="mobula", ray_remote_args={"resources": {"disk": 1}})`` gives the processes options, as
``mobula.remote`` takes them for classes.

Arrays that are passed lie in the store's memory, and functions see them read-only, as ``joblib`` does it with arrays
that it maps from files. The processes stay for later calls with as many jobs, until the session ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

try:
    from joblib._parallel_backends import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
    )
    from joblib.parallel import register_parallel_backend
except ImportError as error:
    raise ImportError("mobula.joblib needs the package joblib: pip install joblib") from error

from mobula._processes import count_of_cpus
from mobula.futures import Executor

__all__ = ["MobulaBackend", "register"]

_lock = threading.Lock()
# The executor that stays, with what it was made for.
_kept: tuple[Any, Executor] | None = None


def _executor(count: int, environment: dict[str, str], given: dict[str, Any]) -> Executor:
    global _kept
    wanted = (count, environment, given)
    with _lock:
        before = _kept
        if before is not None and before[0] == wanted and before[1]._processes.is_alive():
            return before[1]
        its = given.get("runtime_env") or {}
        environment = {**environment, **its.get("env_vars", {})}
        options = {"num_cpus": 0, **given, "runtime_env": {**its, "env_vars": environment}}
        executor = Executor(count, ray_remote_args=options)
        _kept = (wanted, executor)
    if before is not None:
        before[1].shutdown(wait=False)
    return executor


def _run(batch: Callable[[], Any]) -> Any:
    return batch()


class MobulaBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the calls of ``joblib.Parallel`` in processes of the session."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    _executor: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return how many processes there are: for -1 as many as the session has CPUs, for -2 one less, …."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, count_of_cpus() + 1 + n_jobs)

    def configure(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, n_jobs: int = 1, parallel: Any = None, **_: Any
    ) -> int:
        """Get the processes."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        given = self.backend_kwargs.get("ray_remote_args") or {}
        self._executor = _executor(count, self._prepare_worker_env(n_jobs=count), given)
        self.parallel = parallel
        return count

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], Any] | None = None) -> Future[Any]:
        """Run a batch of calls."""
        if self._executor is None:
            raise RuntimeError("this backend is not configured: it is used by joblib.Parallel")
        future = self._executor.submit(_run, func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def apply_async(self, func: Callable[[], Any], callback: Any = None) -> Future[Any]:
        """Run a batch of calls: the name that versions of ``joblib`` before 1.5 use."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch."""
        return out.result()

    def terminate(self) -> None:
        """Let go of the processes, which stay."""
        self._executor = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what runs."""
        if self._executor is not None:
            self._executor.terminate()
            self._executor = None
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


def register(name: str = "mobula") -> None:
    """Register the backend under a name, which ``joblib.parallel_config(backend=…)`` then takes."""
    register_parallel_backend(name, MobulaBackend)


register()
