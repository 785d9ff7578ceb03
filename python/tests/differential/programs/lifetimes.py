"""Actors: their names, their ends and their restarts."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import ray

from programs import raised, said, until


@ray.remote
class _Actor:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        self.value = value

    def pid(self) -> int:
        return os.getpid()

    def leave(self) -> None:
        ray.actor.exit_actor()

    def crash(self) -> None:
        os._exit(1)

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"


def _is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def a_named_actor() -> Any:
    actor = _Actor.options(name="named").remote(5)
    found = ray.get_actor("named")
    return ray.get(found.get.remote()), found == actor


def a_name_that_there_is_not() -> Any:
    return (
        raised(lambda: ray.get_actor("missing")),
        raised(lambda: ray.get_actor("")),
        raised(lambda: ray.get_actor(None)),
    )


def the_text_for_a_name_that_there_is_not() -> Any:
    return said(lambda: ray.get_actor("missing"))


def a_name_twice() -> Any:
    actor = _Actor.options(name="twice").remote(1)
    ray.get(actor.get.remote())
    return raised(lambda: _Actor.options(name="twice").remote(2)), ray.get(ray.get_actor("twice").get.remote())


def a_name_is_free_when_its_actor_is_gone() -> Any:
    actor = _Actor.options(name="free").remote(1)
    ray.get(actor.get.remote())
    ray.kill(actor)

    def is_free() -> bool:
        try:
            ray.get_actor("free")
        except ValueError:
            return True
        return False

    free = until(is_free)
    second = _Actor.options(name="free").remote(2)
    return free, ray.get(second.get.remote())


def names_that_cannot_be() -> Any:
    return raised(lambda: _Actor.options(name="").remote()), raised(lambda: _Actor.options(name=5).remote())


def get_if_exists() -> Any:
    cls = _Actor.options(name="maybe", get_if_exists=True)
    one = cls.remote(1)
    two = cls.remote(2)
    return one == two, ray.get(two.get.remote())


def get_if_exists_without_a_name() -> Any:
    return said(lambda: _Actor.options(get_if_exists=True).remote())


def get_actor_within_a_call() -> Any:
    actor = _Actor.options(name="within").remote(5)
    ray.get(actor.get.remote())
    return ray.get(ray.remote(lambda: ray.get(ray.get_actor("within").get.remote())).remote())


def namespaces() -> Any:
    one = _Actor.options(name="spaced", namespace="one").remote(1)
    two = _Actor.options(name="spaced", namespace="two").remote(2)
    ray.get([one.get.remote(), two.get.remote()])
    found = [ray.get(ray.get_actor("spaced", namespace=name).get.remote()) for name in ("one", "two")]
    return found, raised(lambda: ray.get_actor("spaced"))


def namespaces_that_cannot_be() -> Any:
    return raised(lambda: _Actor.options(name="x", namespace="").remote()), raised(
        lambda: _Actor.options(namespace=5).remote()
    )


def a_handle_of_a_name_knows_the_methods() -> Any:
    actor = _Actor.options(name="methods").remote(1)
    ray.get(actor.get.remote())
    found = ray.get_actor("methods")
    return raised(lambda: found.missing), raised(lambda: found.set.remote()), "get" in dir(found)


def the_list_of_named_actors() -> Any:
    actors = [_Actor.options(name=f"listed{i}").remote() for i in range(2)]
    ray.get([actor.get.remote() for actor in actors])
    return sorted(name for name in ray.util.list_named_actors() if name.startswith("listed"))


def kill_ends_an_actor() -> Any:
    actor = _Actor.remote(1)
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    return raised(lambda: ray.get(actor.get.remote())), until(lambda: _is_gone(pid))


def kill_ends_a_call_that_runs() -> Any:
    actor = _Actor.remote(1)
    ray.get(actor.get.remote())
    ref = actor.sleep.remote(60)
    ray.kill(actor)
    return raised(lambda: ray.get(ref))


def kill_twice() -> Any:
    actor = _Actor.remote(1)
    ray.get(actor.get.remote())
    ray.kill(actor)
    return ray.kill(actor)


def kill_of_something_else() -> Any:
    return said(lambda: ray.kill("actor")), raised(lambda: ray.kill(ray.put(1)))


def results_of_an_actor_outlive_it() -> Any:
    actor = _Actor.remote([1, 2])
    ref = actor.get.remote()
    ray.get(ref)
    ray.kill(actor)
    return ray.get(ref)


def large_results_of_an_actor_outlive_it() -> Any:
    actor = _Actor.remote(b"x" * 1_000_000)
    ref = actor.get.remote()
    ray.wait([ref])
    ray.kill(actor)
    return len(ray.get(ref))


def an_actor_ends_with_its_last_handle() -> Any:
    actor = _Actor.remote()
    pid = ray.get(actor.pid.remote())
    del actor
    return until(lambda: _is_gone(pid))


def an_actor_lives_while_another_process_has_a_handle() -> Any:
    holder = _Actor.remote()
    actor = _Actor.remote(7)
    pid = ray.get(actor.pid.remote())
    ray.get(holder.set.remote([actor]))
    del actor
    inner = ray.get(holder.get.remote())[0]
    return ray.get(inner.get.remote()), ray.get(inner.pid.remote()) == pid


def calls_before_the_last_handle_goes_are_carried_out() -> Any:
    actor = _Actor.remote()
    refs = [actor.sleep.remote(0.1) for _ in range(3)]
    del actor
    return ray.get(refs)


def exit_actor() -> Any:
    actor = _Actor.remote()
    pid = ray.get(actor.pid.remote())
    error = raised(lambda: ray.get(actor.leave.remote()))
    return error, raised(lambda: ray.get(actor.get.remote())), until(lambda: _is_gone(pid))


def exit_actor_outside_an_actor() -> Any:
    return raised(lambda: ray.actor.exit_actor())


def exit_actor_is_no_restart() -> Any:
    actor = _Actor.options(max_restarts=5).remote()
    return raised(lambda: ray.get(actor.leave.remote())), raised(lambda: ray.get(actor.get.remote()))


def a_terminated_actor() -> Any:
    actor = _Actor.remote()
    pid = ray.get(actor.pid.remote())
    actor.__ray_terminate__.remote()
    return until(lambda: _is_gone(pid)), raised(lambda: ray.get(actor.get.remote()))


def a_crash_ends_an_actor() -> Any:
    actor = _Actor.remote()
    return raised(lambda: ray.get(actor.crash.remote())), raised(lambda: ray.get(actor.get.remote()))


def a_crash_ends_the_calls_that_wait() -> Any:
    actor = _Actor.remote()
    refs = [actor.crash.remote(), actor.get.remote(), actor.get.remote()]
    return [raised(lambda ref=ref: ray.get(ref)) for ref in refs]


def a_restart() -> Any:
    actor = _Actor.options(max_restarts=1).remote("begin")
    ray.get(actor.set.remote("changed"))
    before = ray.get(actor.pid.remote())
    os.kill(before, signal.SIGKILL)

    def answers() -> bool:
        try:
            return ray.get(actor.pid.remote()) != before
        except ray.exceptions.RayActorError:
            return False

    return until(answers), ray.get(actor.get.remote())


def restarts_are_counted() -> Any:
    actor = _Actor.options(max_restarts=1, max_task_retries=0).remote()
    found = []

    def settled() -> bool:
        error = raised(lambda: ray.get(actor.get.remote()))
        found.append(error)
        return "ActorUnavailableError" not in error

    ends = []
    for _ in range(2):
        raised(lambda: ray.get(actor.crash.remote()))
        until(settled)
        ends.append(found[-1])
    return ends


def calls_are_retried_after_a_restart(directory: str) -> Any:
    @ray.remote(max_restarts=2, max_task_retries=2)
    class Crashes:
        def count(self, path: str) -> int:
            with open(path, "a") as file:
                file.write(".")
            if os.path.getsize(path) < 3:
                os._exit(1)
            return os.path.getsize(path)

    return ray.get(Crashes.remote().count.remote(f"{directory}/a"))


def kill_with_a_restart() -> Any:
    actor = _Actor.options(max_restarts=1, max_task_retries=-1).remote("begin")
    before = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    return until(lambda: ray.get(actor.pid.remote()) != before), ray.get(actor.get.remote())


def a_restart_is_visible_to_the_actor() -> Any:
    @ray.remote(max_restarts=1, max_task_retries=-1)
    class Knows:
        def was_restarted(self) -> bool:
            return ray.get_runtime_context().was_current_actor_reconstructed

        def pid(self) -> int:
            return os.getpid()

    actor = Knows.remote()
    before = ray.get(actor.was_restarted.remote())
    os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)
    return before, ray.get(actor.was_restarted.remote())


def a_detached_actor() -> Any:
    _Actor.options(name="detached", lifetime="detached").remote(5)
    actor = ray.get_actor("detached")
    found = ray.get(actor.get.remote())
    ray.kill(actor)
    return found


def a_detached_actor_of_a_call() -> Any:
    @ray.remote
    def make() -> None:
        actor = _Actor.options(name="of_a_call", lifetime="detached").remote(6)
        ray.get(actor.get.remote())

    ray.get(make.remote())
    actor = ray.get_actor("of_a_call")
    found = ray.get(actor.get.remote())
    ray.kill(actor)
    return found


def a_lifetime_that_cannot_be() -> Any:
    return raised(lambda: _Actor.options(lifetime="forever").remote())


def too_many_calls_that_wait() -> Any:
    actor = _Actor.options(max_pending_calls=2).remote()
    ray.get(actor.get.remote())
    refs = [actor.sleep.remote(1)]

    def more() -> None:
        for _ in range(5):
            refs.append(actor.get.remote())

    return raised(more), ray.get(refs[0])


def the_destructor_of_an_actor(directory: str) -> Any:
    @ray.remote
    class Leaves:
        def __init__(self, path: str) -> None:
            self.path = path

        def ready(self) -> bool:
            return True

        def __del__(self) -> None:
            with open(self.path, "w") as file:
                file.write("gone")

    actor = Leaves.remote(f"{directory}/a")
    ray.get(actor.ready.remote())
    del actor
    return until(lambda: os.path.exists(f"{directory}/a"))
