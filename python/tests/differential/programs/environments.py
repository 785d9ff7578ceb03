"""``runtime_env`` of calls and actors."""

from __future__ import annotations

import os
from typing import Any

import ray

from programs import raised


def _read(name: str) -> Any:
    return os.environ.get(name)


_remote = ray.remote(_read)


@ray.remote
class _Actor:
    def read(self, name: str) -> Any:
        return os.environ.get(name)

    def inner(self, name: str) -> Any:
        return ray.get(_remote.remote(name))


def a_variable_of_a_call() -> Any:
    return ray.get([_remote.options(runtime_env={"env_vars": {"ONE": "1"}}).remote("ONE"), _remote.remote("ONE")])


def a_variable_of_an_actor() -> Any:
    actor = _Actor.options(runtime_env={"env_vars": {"ONE": "1"}}).remote()
    return ray.get(actor.read.remote("ONE"))


def variables_are_inherited() -> Any:
    actor = _Actor.options(runtime_env={"env_vars": {"INHERITED": "yes"}}).remote()
    return ray.get(actor.inner.remote("INHERITED"))


def variables_are_added() -> Any:
    @ray.remote(runtime_env={"env_vars": {"OUTER": "1", "BOTH": "outer"}})
    def outer() -> Any:
        inner = _remote.options(runtime_env={"env_vars": {"INNER": "2", "BOTH": "inner"}})
        return ray.get([inner.remote(name) for name in ("OUTER", "INNER", "BOTH")])

    return ray.get(outer.remote())


def a_variable_that_refers_to_another() -> Any:
    os.environ["BASE_OF_TEST"] = "base"
    environment = {"env_vars": {"PATH": "/first:${PATH}"}}
    return ray.get(_remote.options(runtime_env=environment).remote("PATH")).startswith("/first:/")


def variables_that_cannot_be() -> Any:
    return raised(lambda: _remote.options(runtime_env={"env_vars": {"A": 1}})), raised(
        lambda: _remote.options(runtime_env={"env_vars": [1]})
    )


def the_option_of_the_decorator() -> Any:
    return ray.get(ray.remote(runtime_env={"env_vars": {"TWO": "2"}})(_read).remote("TWO"))


def the_class_runtime_env() -> Any:
    from ray.runtime_env import RuntimeEnv

    environment = RuntimeEnv(env_vars={"THREE": "3"})
    return (
        ray.get(_remote.options(runtime_env=environment).remote("THREE")),
        environment["env_vars"],
        environment.env_vars(),
    )


def a_key_that_there_is_not() -> Any:
    return raised(lambda: ray.get(_remote.options(runtime_env={"wrong_key": 1}).remote("A"))).startswith("no error")


def an_empty_environment() -> Any:
    return ray.get(_remote.options(runtime_env={}).remote("NO_SUCH_VARIABLE"))
