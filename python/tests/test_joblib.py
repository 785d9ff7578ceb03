"""The backend of joblib: if these fail, ``joblib.Parallel`` computes something else, or not in the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import mobula

joblib = pytest.importorskip("joblib")
pytest.importorskip("mobula.joblib")


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    # Each test has a session of its own: the processes must not be those of the session before.
    mobula.init(num_cpus=2)
    yield
    mobula.shutdown()


def work(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


def fail_at(x: int, bad: int) -> int:
    if x == bad:
        raise KeyError(x)
    return x


@pytest.mark.parametrize("name", ["mobula", "ray"])
def test_calls_run_in_processes_of_the_session(name: str) -> None:
    if name == "ray":
        from mobula.util.joblib import register_ray

        register_ray()
    with joblib.parallel_config(backend=name):
        assert joblib.effective_n_jobs(-1) == 2
        results = joblib.Parallel(n_jobs=2)(joblib.delayed(work)(i) for i in range(500))
        again = joblib.Parallel(n_jobs=2)(joblib.delayed(work)(i) for i in range(500))
        assert [square for square, _ in results] == [i * i for i in range(500)]
        pids = {pid for _, pid in results}
        assert os.getpid() not in pids and len(pids) <= 2
        # The processes stay.
        assert len(pids | {pid for _, pid in again}) <= 2
        assert joblib.Parallel(n_jobs=1)(joblib.delayed(work)(i) for i in range(2))[1] == (1, os.getpid())


def test_an_error_ends_the_calls() -> None:
    with joblib.parallel_config(backend="mobula"):
        with pytest.raises(KeyError):
            joblib.Parallel(n_jobs=2)(joblib.delayed(fail_at)(i, 3) for i in range(100))
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(fail_at)(i, -1) for i in range(10)) == list(range(10))


def test_results_can_be_a_generator() -> None:
    parallel: Any = joblib.Parallel(n_jobs=2, backend="mobula", return_as="generator")
    assert [square for square, _ in parallel(joblib.delayed(work)(i) for i in range(50))] == [i * i for i in range(50)]


def nested(x: int) -> int:
    return sum(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(x)))


def test_calls_may_nest_and_limits_of_threads_are_kept() -> None:
    numpy = pytest.importorskip("numpy")
    with joblib.parallel_config(backend="mobula", inner_max_num_threads=1):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(nested)(i) for i in range(4)) == [0, 0, 1, 3]
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2)) == ["1"] * 2
        array = numpy.arange(100_000)
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(numpy.sum)(array) for _ in range(4)) == [array.sum()] * 4


def test_the_processes_have_the_options_that_are_given() -> None:
    from mobula.util.joblib.ray_backend import RayBackend

    mobula.shutdown()
    mobula.init(num_cpus=2, resources={"disk": 2})

    def left() -> float:
        return mobula.available_resources().get("disk", 0.0)

    options = {"resources": {"disk": 1}, "runtime_env": {"env_vars": {"MODE": "joblib"}}}
    with joblib.parallel_config(backend="mobula", ray_remote_args=options):
        assert type(joblib.parallel.get_active_backend()[0]) is RayBackend
        assert max(joblib.Parallel(n_jobs=2)(joblib.delayed(left)() for _ in range(4))) < 2
        assert set(joblib.Parallel(n_jobs=2)(joblib.delayed(os.getenv)("MODE") for _ in range(4))) == {"joblib"}
