"""Sessions: start, end, options. If this fails, programs hang at their end, or leave processes behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import mobula as ray
from mobula.job_config import JobConfig

pytestmark = pytest.mark.usefixtures("fresh")


def test_start_and_end() -> None:
    assert not ray.is_initialized()
    with ray.init(num_cpus=1) as context:
        assert ray.is_initialized()
        directory = context["session_dir"]
        with pytest.raises(RuntimeError, match="twice by accident"):
            ray.init()
        ray.init(ignore_reinit_error=True)
    assert not ray.is_initialized() and not os.path.exists(directory)
    ray.shutdown()


def test_functions_and_classes_outlive_a_session() -> None:
    @ray.remote
    def one() -> int:
        return 1

    @ray.remote
    class Two:
        def get(self) -> int:
            return 2

    for _ in range(2):
        ray.init(num_cpus=1)
        assert ray.get(one.remote()) == 1 and ray.get(Two.remote().get.remote()) == 2
        ray.shutdown()


def test_values_outlive_a_session_and_references_do_not() -> None:
    ray.init(num_cpus=1)
    ref = ray.put(np.arange(100_000))
    array = ray.get(ref)
    ray.shutdown()
    assert int(array.sum()) == sum(range(100_000))
    ray.init(num_cpus=1)
    with pytest.raises(ray.exceptions.RaySystemError, match="session that has ended"):
        ray.get(ref)


def test_the_first_use_starts_a_session() -> None:
    @ray.remote
    def one() -> int:
        return 1

    assert ray.get(one.remote()) == 1
    assert ray.is_initialized()


def test_resources() -> None:
    ray.init(num_cpus=3, resources={"disk": 2})
    assert ray.cluster_resources()["CPU"] == 3 and ray.cluster_resources()["disk"] == 2
    assert ray.available_resources()["CPU"] == 3

    @ray.remote(resources={"disk": 1})
    def one() -> int:
        return 1

    assert ray.get(one.remote()) == 1


def test_gpus() -> None:
    ray.init(num_cpus=2, num_gpus=2)
    assert ray.cluster_resources()["GPU"] == 2

    @ray.remote(num_gpus=1)
    def mine() -> tuple[list[int | str], str | None]:
        return ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    @ray.remote
    def none() -> tuple[list[int | str], str | None]:
        return ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")

    ids, visible = ray.get(mine.remote())
    assert len(ids) == 1 and visible == str(ids[0])
    assert ray.get(none.remote()) == ([], "")


def test_options_that_cannot_be() -> None:
    with pytest.raises(RuntimeError, match="surprise"):
        ray.init(surprise=1)
    with pytest.raises(ValueError):
        ray.init(num_cpus=-1)
    with pytest.raises(ValueError, match="address"):
        ray.init(address="elsewhere:10001")
    with pytest.raises(RuntimeError, match="local_mode"):
        ray.init(local_mode=True)
    assert not ray.is_initialized()


def test_a_full_store_is_an_error_that_says_so() -> None:
    ray.init(num_cpus=1, object_store_memory=32 << 20)
    with pytest.raises(ray.exceptions.ObjectStoreFullError, match="bytes"):
        ray.put(np.zeros(64 << 20, dtype=np.uint8))


def test_a_worker_cannot_start_a_session() -> None:
    ray.init(num_cpus=1)
    starts = ray.remote(lambda: ray.init())
    with pytest.raises(RuntimeError, match="worker"):
        ray.get(starts.remote())


def test_threads_start_one_session_together() -> None:
    import threading

    @ray.remote
    def one() -> int:
        return 1

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(ray.get(one.remote()))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 6


def test_a_call_that_waits_for_room_holds_up_no_other_thread() -> None:
    import threading

    ray.init(num_cpus=1, object_store_memory=80 << 20)
    held = [ray.put(np.zeros(60 << 20, dtype=np.uint8))]
    # In use, so that it cannot be spilled.
    arrays = [ray.get(held[0])]
    length = ray.remote(len)
    array = np.zeros(40 << 20, dtype=np.uint8)

    def make_room() -> None:
        held.clear()
        arrays.clear()

    # It runs while the call waits: only if that does not have the interpreter's lock.
    threading.Timer(0.2, make_room).start()
    assert ray.get(length.remote(array)) == 40 << 20


def test_the_context_describes_the_session() -> None:
    context = ray.init(num_cpus=1)
    assert context["address"] == context.address_info["object_store_address"]
    assert os.path.dirname(context["address"]) == context["session_dir"]
    assert context["node_id"] == ray.get_runtime_context().get_node_id()
    assert context.dashboard_url == ""


def test_a_job_has_a_namespace_an_environment_and_modules(tmp_path: Path) -> None:
    (tmp_path / "only_for_workers.py").write_text("NUMBER = 7")
    job = JobConfig([str(tmp_path)], runtime_env={"env_vars": {"MODE": "job"}}, ray_namespace="jobs")
    job.set_metadata("about", "a test")
    ray.init(num_cpus=1, job_config=job)
    assert ray.get_runtime_context().namespace == "jobs"

    @ray.remote
    def look() -> tuple[int, str | None]:
        import importlib

        return importlib.import_module("only_for_workers").NUMBER, os.environ.get("MODE")

    assert ray.get(look.remote()) == (7, "job")
    with pytest.raises(ValueError, match="code search path"):
        JobConfig(str(tmp_path))  # type: ignore[arg-type, unused-ignore]


def test_amounts_of_memory_are_rounded_down() -> None:
    @ray.remote
    def one() -> int:
        return 1

    ray.init(num_cpus=1, _memory=2.9)
    assert ray.cluster_resources()["memory"] == 2
    assert ray.get(one.options(memory=2.5).remote()) == 1


def test_devices_come_in_parts_or_whole() -> None:
    ray.init(num_cpus=1, num_gpus=2, resources={"TPU": 3})

    @ray.remote
    def devices() -> dict[str, list[str]]:
        return ray.get_runtime_context().get_accelerator_ids()

    for wrong in ({"num_gpus": 1.5}, {"resources": {"TPU": 2.5}}):
        with pytest.raises(ValueError, match="whole numbers"):
            devices.options(**wrong).remote()
    found = ray.get(devices.options(num_gpus=0.5).remote())
    assert len(found.pop("GPU")) == 1
    # Other kinds of devices have no names here.
    assert found and not any(found.values())


def test_ids_know_their_driver() -> None:
    ray.init(num_cpus=1)
    job = ray.get_runtime_context().job_id

    @ray.remote
    def mine() -> bool:
        context = ray.get_runtime_context()
        return bool(context.job_id == context.task_id.job_id() == ray.put(1).job_id() == job)

    @ray.remote
    class Actor:
        def one(self) -> int:
            return 1

    assert ray.get(mine.remote())
    actor = Actor.remote()
    assert actor._actor_id.job_id == job == actor.one.remote().job_id()
