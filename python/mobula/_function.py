"""Remote functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from mobula import _mobula, _options, _session
from mobula._mobula import ObjectRef
from mobula._retries import Retried
from mobula._session import ensure
from mobula._signature import of_function, takes
from mobula._stream import IN_FLIGHT_MAX, dynamic, of_one_generator

if TYPE_CHECKING:
    from mobula.dag import DAGNode

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function that worker processes run. ``@remote`` returns it."""

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks. You can wrap the async function with "
                "`asyncio.run(f())`."
            )
        _options.check(options, is_actor=False)
        self._function = function
        self._name = getattr(function, "__name__", repr(function))
        self._defaults = options
        self._exported: dict[tuple[tuple[type[BaseException], ...], bool], _mobula.Function] = {}
        self._signature = of_function(function)
        functools.update_wrapper(self, function)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{self._name}()', try "
            f"'{self._name}.remote()'."
        )

    # A reference may stand for any argument, and no type can say that. So checkers accept the second signature, too,
    # and editors show the first.
    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    @overload
    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]:
        """Call the function in a worker. References among the arguments become values there."""
        # From now on, the extension module makes the calls of this session. In another session it calls this function
        # again.
        call = self.__dict__["remote"] = _prepare(self, self._defaults, self.__class__.remote.__get__(self))
        return call(*args, **kwargs)  # type: ignore[no-any-return]

    def options(self, **options: Any) -> _Optioned[P, R]:
        """Return the function with other options.

        ::

            import mobula as ray

            @ray.remote
            def square(x):
                return x * x

            assert ray.get(square.options(num_cpus=0.5, max_retries=0, name="of three").remote(3)) == 9

        ``timeout`` and ``deadline`` are the most seconds, or a ``datetime.timedelta``, that a call may run, and that it
        may take from its making to its end. Then it is cancelled, and its result is an error. ::

            @ray.remote
            def waits():
                while not ray.get_runtime_context().is_canceled():
                    pass

            try:
                ray.get(waits.options(timeout=0.1).remote())
            except ray.exceptions.TaskTimedOutError as error:
                assert isinstance(error, TimeoutError)
        """
        _options.check(options, is_actor=False)
        return _Optioned(self, {**self._defaults, **options})

    def _remote(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.options(**options).remote(*args, **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> DAGNode:
        """Return a node of a graph, which calls the function when the graph is executed."""
        from mobula.dag import FunctionNode

        return FunctionNode(self.remote, args, kwargs)

    def _export(self, retried: tuple[type[BaseException], ...], is_dynamic: bool = False) -> _mobula.Function:
        """Return the function for workers. If classes of exceptions are given, only these exceptions are retried."""
        is_checked = is_dynamic and not inspect.isgeneratorfunction(self._function)
        exported = self._exported.get((retried, is_checked))
        if exported is None:
            function: Callable[..., Any] = of_one_generator(self._function) if is_checked else self._function
            if retried:
                function = Retried(function, retried)
            exported = _mobula.Function(self._name, f"remote function {self._name}", function)
            self._exported[retried, is_checked] = exported
        return exported

    def __reduce__(self) -> Any:
        return (RemoteFunction, (self._function, self._defaults))


class _Optioned(Generic[P, R]):
    """A remote function with other options."""

    def __init__(self, function: RemoteFunction[P, R], options: dict[str, Any]) -> None:
        self._of, self._options = function, options
        # Invalid options are refused now.
        _options.of_task(options)

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    @overload
    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]:
        """Call the function with these options."""
        call = self.__dict__["remote"] = _prepare(self._of, self._options, _Optioned.remote.__get__(self))
        return call(*args, **kwargs)  # type: ignore[no-any-return]

    def bind(self, *args: Any, **kwargs: Any) -> DAGNode:
        """Return a node of a graph, which calls the function with these options when the graph is executed."""
        from mobula.dag import FunctionNode

        return FunctionNode(self.remote, args, kwargs)


def _prepare(
    function: RemoteFunction[Any, Any], options: dict[str, Any], otherwise: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function that makes calls with these options in this session.

    In another session it calls ``otherwise``.
    """
    ensure()
    of_ray = _session.cluster()
    if of_ray is not None:
        of_cluster = of_ray.function(function._function, options)

        def call(*args: Any, **kwargs: Any) -> Any:
            return of_cluster(args, kwargs) if _session.cluster() is of_ray else otherwise(*args, **kwargs)
    else:
        num_returns = _options.num_returns_of(function._function, options.get("num_returns"))
        in_flight_max = _options.in_flight_max(options.get("_generator_backpressure_num_objects"), IN_FLIGHT_MAX)
        retried = _retried(options.get("retry_exceptions"), inspect.isgeneratorfunction(function._function))
        is_dynamic = num_returns == _options.DYNAMIC
        exported, prepared = function._export(retried, is_dynamic), _options.of_task(options)
        fits = takes(function._signature)
        if is_dynamic:
            # In another session, the stream that comes is one that can be passed on already.
            stream = _mobula.PreparedFunction(exported, prepared, _options.STREAMING, in_flight_max, *fits, otherwise)

            def call(*args: Any, **kwargs: Any) -> Any:
                return dynamic(stream(*args, **kwargs))
        else:
            call = _mobula.PreparedFunction(exported, prepared, num_returns, in_flight_max, *fits, otherwise)
    # A program may wrap its calls.
    decorator = getattr(function._function, "__ray_invocation_decorator__", None)
    if decorator is None:
        return call
    decorated = decorator(lambda args, kwargs: call(*args, **kwargs))
    return lambda *args, **kwargs: decorated(args, kwargs)


def _retried(option: Any, is_generator: bool) -> tuple[type[BaseException], ...]:
    """Return the classes of errors to retry, if the core cannot decide: it retries all errors, or none."""
    if isinstance(option, list | tuple):
        return tuple(option)
    # An error after the first results of a generator is a result, unless it is retried.
    return (Exception,) if option and is_generator else ()
