"""What is meant to differ from Ray: for each program, what it gives here, and why."""

from __future__ import annotations

DIFFERENCES: dict[str, dict[str, tuple[str, str]]] = {
    "actors": {
        "the_decorator_method_with_wrong_options": (
            "'ValueError Exception'",
            "a ValueError in place of a failed assertion",
        ),
        "an_actor_with_a_handle_to_itself": (
            "raises RayTaskError(RuntimeError): ['RuntimeError: This method is only available in an act"
            "or that has a name.']",
            "current_actor is there where the actor has a name",
        ),
        "the_class_has_its_attributes": ("('Counts.', True, 'counter')", "the documentation of the class is there"),
    },
    "asynchronous": {
        "async_calls_are_cancelled": (
            "('RayError RayTaskError TaskCancelledError Exception', 1)",
            "the error of a cancelled call can be caught as TaskCancelledError and as RayTaskError",
        ),
        "a_concurrency_that_cannot_be": (
            "('ValueError Exception', 'ValueError Exception')",
            "max_concurrency=0 is an error, because such an actor carries out nothing",
        ),
    },
    "cancelling": {
        "a_call_that_waits_for_a_cpu": (
            "'RayError RayTaskError TaskCancelledError Exception'",
            "the error of a cancelled call can be caught as TaskCancelledError and as RayTaskError, whe"
            "ther the call ran or waited",
        ),
        "a_call_that_waits_for_another": (
            "'RayError RayTaskError TaskCancelledError Exception'",
            "the error of a cancelled call can be caught as TaskCancelledError and as RayTaskError, whe"
            "ther the call ran or waited",
        ),
        "a_method_that_waits_its_turn": (
            "('waited', 'RayError RayTaskError TaskCancelledError Exception', 'next')",
            "the error of a cancelled call can be caught as TaskCancelledError and as RayTaskError, whe"
            "ther the call ran or waited",
        ),
    },
    "environments": {
        "a_key_that_there_is_not": ("False", "an unknown key of runtime_env is an error, and not ignored"),
    },
    "errors": {
        "local_error_classes": (
            "(True, ('local',))",
            "the arguments of an error are those of its cause, as where it was raised",
        ),
        "the_arguments_of_an_error": (
            "('text', 5)",
            "the arguments of an error are those of its cause, as where it was raised",
        ),
        "a_call_that_exits": (
            "'RayError RayTaskError SystemExit'",
            "sys.exit in a call is the error of the call, with its traceback, and not a crash",
        ),
    },
    "generators": {
        "the_option_dynamic": (
            "('DynamicObjectRefGenerator', [0, 1, 2])",
            "the call returns the generator itself, at once, and not a reference to it",
        ),
        "streaming_of_a_function_that_is_no_generator": (
            "['no error: 1', 'no error: 2']",
            "any iterable that a function returns can be streamed",
        ),
    },
    "objects": {
        "get_a_tuple": ("'no error: [1, 2]'", "any sequence of references can be got"),
    },
    "options": {
        "the_decorator_with_positions": (
            "('TypeError Exception', 'TypeError Exception')",
            "a TypeError in place of a failed assertion",
        ),
        "options_of_a_method": ("(1, 'ValueError Exception')", "an unknown option of a method is an error"),
    },
    "pools": {
        "callbacks": ("([1], [True])", "an error callback gets the error itself, as with multiprocessing"),
        "a_result_that_is_not_there": (
            "(False, 'TimeoutError TimeoutError ProcessError TimeoutError OSError Exception', 'ValueErr"
            "or Exception', None)",
            "the timeout is a TimeoutError of Python, too",
        ),
    },
    "queues": {
        "get_of_an_empty_queue": (
            "('Empty Empty Exception', 'Empty Empty Exception', 'Empty Empty Exception')",
            "Empty and Full are raised as they are, and not as errors of a call",
        ),
        "put_into_a_full_queue": (
            "('Full Full Exception', 'Full Full Exception', 'Full Full Exception')",
            "Empty and Full are raised as they are, and not as errors of a call",
        ),
        "batches": (
            "([1, 2], 'Empty Empty Exception', 'Full Full Exception', 1)",
            "Empty and Full are raised as they are, and not as errors of a call",
        ),
    },
    "resources": {
        "the_names_of_resources": (
            "[True, True, True, False, True]",
            "memory of objects is no resource that calls demand",
        ),
        "the_current_actor": ("(True, False)", "current_actor is there where the actor has a name"),
    },
    "tasks": {
        "a_builtin": ("'no error: 3'", "anything that can be called can be a remote function"),
        "a_partial": (
            "'no error: <mobula._function.RemoteFunction object at 0x…>'",
            "anything that can be called can be a remote function",
        ),
        "something_that_cannot_be_called": (
            "('TypeError Exception', 'TypeError Exception')",
            "a TypeError in place of a failed assertion",
        ),
    },
    "values": {
        "a_bytearray": ("(bytearray(b'abc'), [bytearray(b'abc')])", "a bytearray stays one"),
        "shared_parts_stay_shared": ("True", "a part that a value has twice is one object again"),
    },
}
