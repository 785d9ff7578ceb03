"""``init`` and ``shutdown``."""

from __future__ import annotations

import os
from typing import Any

import ray

from programs import raised

INIT = None
_QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


def _cpus() -> float:
    return ray.cluster_resources()["CPU"]


def before_and_after() -> Any:
    found = [ray.is_initialized()]
    ray.init(num_cpus=1, **_QUIET)
    found.append(ray.is_initialized())
    ray.shutdown()
    return [*found, ray.is_initialized()]


def init_twice() -> Any:
    ray.init(num_cpus=1, **_QUIET)
    return raised(lambda: ray.init(num_cpus=1))


def init_twice_without_an_error() -> Any:
    ray.init(num_cpus=1, **_QUIET)
    ray.init(num_cpus=3, ignore_reinit_error=True)
    return _cpus()


def shutdown_twice() -> Any:
    ray.init(num_cpus=1, **_QUIET)
    ray.shutdown()
    return ray.shutdown(), ray.is_initialized()


def a_session_as_a_context() -> Any:
    with ray.init(num_cpus=1, **_QUIET) as context:
        inner = ray.is_initialized(), type(context.address_info).__name__
    return *inner, ray.is_initialized()


def one_session_after_another() -> Any:
    found = []
    for count in (1, 3):
        ray.init(num_cpus=count, **_QUIET)
        found.append((_cpus(), ray.get(ray.remote(lambda x: x).remote(count))))
        ray.shutdown()
    return found


def a_function_of_an_earlier_session() -> Any:
    f = ray.remote(lambda: 5)
    ray.init(num_cpus=1, **_QUIET)
    found = [ray.get(f.remote())]
    ray.shutdown()
    ray.init(num_cpus=1, **_QUIET)
    return [*found, ray.get(f.remote())]


def a_class_of_an_earlier_session() -> Any:
    class Plain:
        def get(self) -> int:
            return 6

    cls = ray.remote(Plain)
    ray.init(num_cpus=1, **_QUIET)
    found = [ray.get(cls.remote().get.remote())]
    ray.shutdown()
    ray.init(num_cpus=1, **_QUIET)
    return [*found, ray.get(cls.remote().get.remote())]


def values_outlive_the_session() -> Any:
    import numpy as np

    ray.init(num_cpus=1, **_QUIET)
    array = ray.get(ray.put(np.arange(100_000)))
    copied = int(array.sum())
    ray.shutdown()
    return copied


def options_that_cannot_be() -> Any:
    return raised(lambda: ray.init(wrong_option=1)), raised(lambda: ray.init(num_cpus=-1)), ray.is_initialized()


def the_namespace() -> Any:
    ray.init(num_cpus=1, namespace="mine", **_QUIET)
    inner = ray.get(ray.remote(lambda: ray.get_runtime_context().namespace).remote())
    return ray.get_runtime_context().namespace, inner


def the_environment_of_the_session() -> Any:
    ray.init(num_cpus=1, runtime_env={"env_vars": {"OF_THE_SESSION": "1"}}, **_QUIET)
    read = ray.remote(lambda name: os.environ.get(name))
    own = read.options(runtime_env={"env_vars": {"OWN": "2"}})
    return ray.get([read.remote("OF_THE_SESSION"), own.remote("OWN"), own.remote("OF_THE_SESSION")])


def a_directory_of_the_session(directory: str) -> Any:
    with open(f"{directory}/data.txt", "w") as file:
        file.write("data")
    with open(f"{directory}/only_there.py", "w") as file:
        file.write("value = 5\n")

    @ray.remote
    def read() -> Any:
        import only_there

        with open("data.txt") as file:
            return file.read(), only_there.value

    ray.init(num_cpus=1, runtime_env={"working_dir": directory}, **_QUIET)
    return ray.get(read.remote())


def modules_of_the_session(directory: str) -> Any:
    os.mkdir(f"{directory}/a_module")
    with open(f"{directory}/a_module/__init__.py", "w") as file:
        file.write("value = 6\n")

    @ray.remote
    def read() -> int:
        import a_module

        return a_module.value

    ray.init(num_cpus=1, runtime_env={"py_modules": [f"{directory}/a_module"]}, **_QUIET)
    return ray.get(read.remote())


def a_function_that_begins_each_process() -> Any:
    def begin() -> None:
        os.environ["BEGUN"] = "yes"

    ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": begin}, **_QUIET)
    return ray.get(ray.remote(lambda: os.environ.get("BEGUN")).remote())


def local_mode() -> Any:
    try:
        ray.init(local_mode=True, num_cpus=1, **_QUIET)
    except Exception as error:
        return type(error).__name__
    return ray.get(ray.remote(lambda x: x + 1).remote(1))


def without_a_session() -> Any:
    return raised(lambda: ray.cluster_resources()), raised(lambda: ray.nodes()), ray.is_initialized()


def resources_of_a_session() -> Any:
    ray.init(num_cpus=2, num_gpus=1, resources={"a": 1}, **_QUIET)
    return [ray.cluster_resources()[name] for name in ("CPU", "GPU", "a")]
