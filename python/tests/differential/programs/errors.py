"""Errors of remote functions and methods: their classes, their texts, and where they appear."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

import ray

from programs import classes, raised


class _Own(Exception):
    """An error of the program."""

    def __init__(self, code: int, detail: str = "d") -> None:
        super().__init__(f"own error {code}")
        self.code, self.detail = code, detail

    def __reduce__(self) -> Any:
        return (_Own, (self.code, self.detail))


class _Derived(_Own, LookupError):
    pass


class _Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        import threading

        self.lock = threading.Lock()


@ray.remote(max_retries=0)
def _fail(error: Any) -> None:
    raise error


@ray.remote
class _Actor:
    def fail(self, error: Any) -> None:
        raise error

    def fine(self) -> str:
        return "fine"


def _caught(ref: Any) -> BaseException:
    try:
        ray.get(ref)
    except BaseException as error:
        return error
    raise AssertionError("no error")


def classes_of_builtin_errors() -> Any:
    errors = [
        ValueError("v"),
        KeyError("k"),
        ZeroDivisionError(),
        OSError(2, "n"),
        NotImplementedError(),
        StopIteration(),
    ]
    return [classes(_caught(_fail.remote(error))) for error in errors]


def errors_are_caught_by_their_class() -> Any:
    try:
        ray.get(_fail.remote(ValueError("v")))
    except ValueError as error:
        return type(error).__name__, isinstance(error, ray.exceptions.RayTaskError)


def own_errors_keep_their_class_and_attributes() -> Any:
    error = _caught(_fail.remote(_Own(5, "x")))
    return classes(error), error.code, error.detail, error.cause.code


def errors_with_several_bases() -> Any:
    error = _caught(_fail.remote(_Derived(5)))
    return isinstance(error, _Own), isinstance(error, LookupError), isinstance(error, ray.exceptions.RayError)


def local_error_classes() -> Any:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("local")

    error = _caught(ray.remote(fail).remote())
    return isinstance(error, Local), error.args


def the_cause() -> Any:
    cause = _caught(_fail.remote(ValueError("text", 5))).cause
    return type(cause).__name__, cause.args


def the_arguments_of_an_error() -> Any:
    return _caught(_fail.remote(ValueError("text", 5))).args


def the_text_has_the_function_and_the_traceback() -> Any:
    def inner_function() -> None:
        raise ValueError("what went wrong")

    def outer_function() -> None:
        inner_function()

    text = str(_caught(ray.remote(outer_function).remote()))
    wanted = ["ray::outer_function()", "pid=", "inner_function", "ValueError: what went wrong"]
    return [part in text for part in wanted]


def the_last_line_of_the_text() -> Any:
    return str(_caught(_fail.remote(KeyError("k")))).splitlines()[-1]


def chained_errors_are_told() -> Any:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    text = str(_caught(ray.remote(fail).remote()))
    return "first" in text, "second" in text


def an_error_that_cannot_be_pickled() -> Any:
    error = _caught(ray.remote(lambda: (_ for _ in ()).throw(_Unpicklable())).remote())
    return isinstance(error, ray.exceptions.RayTaskError), "has a lock" in str(error)


def an_error_as_an_argument_fails_the_call() -> Any:
    @ray.remote
    def use(value: Any) -> Any:
        return value

    return classes(_caught(use.remote(_fail.remote(ValueError("v")))))


def an_error_passes_through_a_chain() -> Any:
    @ray.remote
    def use(value: Any) -> Any:
        return value

    ref = _fail.remote(KeyError("k"))
    for _ in range(5):
        ref = use.remote(ref)
    return classes(_caught(ref))


def an_error_within_a_call_that_waits() -> Any:
    @ray.remote
    def outer() -> Any:
        return ray.get(_fail.remote(ValueError("inner")))

    error = _caught(outer.remote())
    return classes(error), "inner" in str(error)


def an_error_caught_within_a_call() -> Any:
    @ray.remote
    def outer() -> str:
        try:
            ray.get(_fail.remote(ValueError("inner")))
        except ValueError:
            return "caught"
        return "not caught"

    return ray.get(outer.remote())


def get_of_a_list_raises_the_error() -> Any:
    return raised(lambda: ray.get([ray.put(1), _fail.remote(KeyError()), ray.put(2)]))


def an_error_can_be_raised_twice() -> Any:
    ref = _fail.remote(ValueError("v"))
    return classes(_caught(ref)), classes(_caught(ref))


def errors_of_several_results() -> Any:
    first, second = _fail.options(num_returns=2).remote(ValueError("v"))
    return classes(_caught(first)), classes(_caught(second))


def an_error_can_be_pickled() -> Any:
    error = pickle.loads(ray.cloudpickle.dumps(_caught(_fail.remote(ValueError("v")))))
    return classes(error), "ValueError: v" in str(error)


def an_error_can_be_put() -> Any:
    found = ray.get(ray.put([_caught(_fail.remote(ValueError("v")))]))
    return classes(found[0])


def an_error_as_a_result_is_a_value() -> Any:
    return ray.get(ray.remote(lambda: ValueError("returned")).remote())


def a_reference_to_an_error_within_a_list() -> Any:
    @ray.remote
    def use(refs: list[Any]) -> str:
        return classes(_caught(refs[0]))

    return ray.get(use.remote([_fail.remote(ValueError("v"))]))


def a_call_that_exits() -> Any:
    return classes(_caught(ray.remote(max_retries=0)(lambda: sys.exit(3)).remote()))


def a_process_that_ends() -> Any:
    return classes(_caught(ray.remote(max_retries=0)(lambda: os._exit(1)).remote()))


def base_exceptions() -> Any:
    class Odd(BaseException):
        pass

    return isinstance(
        _caught(ray.remote(max_retries=0)(lambda: (_ for _ in ()).throw(Odd())).remote()), ray.exceptions.RayError
    )


def calls_after_a_crash() -> Any:
    _caught(ray.remote(max_retries=0)(lambda: os._exit(1)).remote())
    return ray.get(ray.remote(lambda: "next").remote())


def methods_fail_and_the_actor_lives() -> Any:
    actor = _Actor.remote()
    return classes(_caught(actor.fail.remote(_Own(3)))), ray.get(actor.fine.remote())


def the_text_of_a_method_has_its_name() -> Any:
    text = str(_caught(_Actor.remote().fail.remote(ValueError("v"))))
    return "ray::_Actor.fail()" in text, "ValueError: v" in text


def a_method_that_there_is_not() -> Any:
    actor = _Actor.remote()
    return raised(lambda: actor.missing), raised(lambda: actor.missing.remote())


def errors_of_the_constructor() -> Any:
    @ray.remote
    class Fails:
        def __init__(self) -> None:
            raise ValueError("in the constructor")

        def method(self) -> None:
            pass

    error = _caught(Fails.remote().method.remote())
    return classes(error), "in the constructor" in str(error)


def retries_of_errors(directory: str) -> Any:
    @ray.remote(max_retries=3, retry_exceptions=True)
    def sometimes(path: str) -> int:
        with open(path, "a") as file:
            file.write(".")
        if os.path.getsize(path) < 3:
            raise ValueError
        return os.path.getsize(path)

    return ray.get(sometimes.remote(f"{directory}/a"))


def errors_are_not_retried_by_default(directory: str) -> Any:
    @ray.remote(max_retries=3)
    def count(path: str) -> None:
        with open(path, "a") as file:
            file.write(".")
        raise ValueError

    return classes(_caught(count.remote(f"{directory}/a"))), os.path.getsize(f"{directory}/a")


def named_errors_are_retried(directory: str) -> Any:
    @ray.remote(max_retries=2, retry_exceptions=[KeyError])
    def count(path: str, error: Any) -> None:
        with open(path, "a") as file:
            file.write(".")
        raise error

    found = []
    for name, error in (("a", KeyError()), ("b", ValueError())):
        found += [classes(_caught(count.remote(f"{directory}/{name}", error))), os.path.getsize(f"{directory}/{name}")]
    return found


def crashes_are_retried(directory: str) -> Any:
    @ray.remote(max_retries=3)
    def crash(path: str) -> int:
        with open(path, "a") as file:
            file.write(".")
        if os.path.getsize(path) < 3:
            os._exit(1)
        return os.path.getsize(path)

    return ray.get(crash.remote(f"{directory}/a"))


def the_hierarchy() -> Any:
    names = [
        "RayActorError", "ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "RayTaskError",
        "GetTimeoutError", "TaskCancelledError", "ObjectLostError", "OwnerDiedError", "ObjectFetchTimedOutError",
        "ReferenceCountingAssertionError", "ObjectReconstructionFailedError", "ObjectStoreFullError", "OutOfDiskError",
        "OutOfMemoryError", "RuntimeEnvSetupError", "TaskUnschedulableError", "ActorUnschedulableError",
        "PendingCallsLimitExceeded", "CrossLanguageError", "AsyncioActorExit", "RaySystemError", "LocalRayletDiedError",
        "NodeDiedError", "TaskPlacementGroupRemoved", "ActorPlacementGroupRemoved", "RayError", "RayChannelError",
        "RayChannelTimeoutError", "UnserializableException", "UserCodeException", "AuthenticationError",
        "ObjectRefStreamEndOfStreamError", "RayCgraphCapacityExceeded", "RayDirectTransportError",
    ]  # fmt: skip
    found = {}
    for name in names:
        cls = getattr(ray.exceptions, name, None)
        found[name] = [base.__name__ for base in cls.__mro__[1:-2]] if cls else None
    return found
