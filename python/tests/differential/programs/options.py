"""Options: which there are, and what is said of those that there are not."""

from __future__ import annotations

from typing import Any

import ray

from programs import raised, said


def _function(value: Any = 1) -> Any:
    return value


class _Class:
    def get(self) -> int:
        return 1


_remote = ray.remote(_function)
_Actor = ray.remote(_Class)


def an_option_that_there_is_not() -> Any:
    return raised(lambda: ray.remote(wrong=1)(_function)), raised(lambda: _remote.options(wrong=1))


def the_text_for_an_option_that_there_is_not() -> Any:
    return said(lambda: _remote.options(wrong=1)).split(". ")[0], said(lambda: _Actor.options(wrong=1)).split(". ")[0]


def options_of_actors_for_functions() -> Any:
    return [
        raised(lambda name=name: _remote.options(**{name: 1}))
        for name in ("max_restarts", "lifetime", "max_concurrency")
    ]


def options_of_functions_for_actors() -> Any:
    return [
        raised(lambda name=name: _Actor.options(**{name: 1})) for name in ("num_returns", "max_retries", "max_calls")
    ]


def the_decorator_with_positions() -> Any:
    return raised(lambda: ray.remote(_function, 2)), raised(lambda: ray.remote(2)(_function))


def numbers_of_results_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(num_returns=n)(_function)) for n in (-1, "wrong", 1.5)]


def retries_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(max_retries=n)(_function)) for n in (-2, "wrong", 1.5)]


def retries_without_end() -> Any:
    return ray.get(ray.remote(max_retries=-1)(_function).remote(5))


def restarts_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(max_restarts=n)(_Class)) for n in (-2, "wrong")]


def task_retries_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(max_task_retries=n)(_Class)) for n in (-2, "wrong")]


def calls_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(max_calls=n)(_function)) for n in (-1, "wrong")]


def calls_of_a_process() -> Any:
    import os

    pids = [ray.get(ray.remote(max_calls=1)(os.getpid.__class__ and (lambda: os.getpid())).remote()) for _ in range(2)]
    return len(set(pids))


def concurrency_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(max_concurrency=n)(_Class)) for n in (-1, "wrong")]


def pending_calls_that_cannot_be() -> Any:
    return [raised(lambda n=n: ray.remote(max_pending_calls=n)(_Class)) for n in (-2, "wrong")]


def a_lifetime() -> Any:
    return [raised(lambda of=of: ray.remote(lifetime=of)(_Class)) for of in ("wrong", 5)]


def names_that_cannot_be() -> Any:
    return raised(lambda: _remote.options(name=5)), raised(lambda: _Actor.options(name=5))


def environments_that_cannot_be() -> Any:
    return raised(lambda: _remote.options(runtime_env=5)), raised(
        lambda: _remote.options(runtime_env={"env_vars": 5}).remote()
    )


def memory() -> Any:
    return ray.get(_remote.options(memory=1_000_000).remote(2)), ray.get(
        _Actor.options(memory=1_000_000.0).remote().get.remote()
    )


def empty_options() -> Any:
    return ray.get(_remote.options().remote(3)), ray.get(_Actor.options().remote().get.remote())


def options_that_are_none() -> Any:
    return ray.get(_remote.options(num_cpus=None, name=None, resources=None, runtime_env=None).remote(4))


def options_of_options() -> Any:
    return raised(lambda: _remote.options(num_cpus=1).options(num_cpus=2))


def options_of_a_method() -> Any:
    actor = _Actor.remote()
    return ray.get(actor.get.options(num_returns=1, name="given").remote()), raised(lambda: actor.get.options(wrong=1))


def options_of_a_class_with_options() -> Any:
    @ray.remote(num_cpus=0, max_restarts=1)
    class Given:
        def get(self) -> int:
            return 2

    return ray.get(Given.options(num_cpus=1).remote().get.remote())


def enable_task_events() -> Any:
    return ray.get(_remote.options(enable_task_events=False).remote(5))


def retry_exceptions_that_cannot_be() -> Any:
    return [raised(lambda of=of: ray.remote(retry_exceptions=of)(_function)) for of in ("wrong", 5)]


def labels() -> Any:
    return ray.get(_remote.options(_labels={"a": "b"}).remote(1))
