"""Remote functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from mobula import _mobula, _options, _session
from mobula._mobula import ObjectRef
from mobula._retries import Retried
from mobula._session import ensure
from mobula._signature import of_function
from mobula._stream import IN_FLIGHT_MAX, ObjectRefGenerator

if TYPE_CHECKING:
    from mobula.dag import DAGNode

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function that worker processes run: what ``@remote`` makes of it."""

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
        self._exported: dict[tuple[type[BaseException], ...], _mobula.Function] = {}
        self._prepared: Callable[[tuple[Any, ...], dict[str, Any]], Any] | None = None
        # The environment of the session that it was prepared for.
        self._environment: dict[str, Any] | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"Remote functions cannot be called directly. Instead of running '{self._name}()', try "
            f"'{self._name}.remote()'."
        )

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Call the function in a worker. References among the arguments are waited for there, and become values."""
        call = self._prepared
        if call is None or self._environment is not _session.environment:
            ensure()
            self._environment = _session.environment
            call = self._prepared = self._prepare(self._defaults)
        return call(args, kwargs)  # type: ignore[no-any-return]

    def options(self, **options: Any) -> _Optioned[P, R]:
        """Return the function with other options: ``f.options(num_cpus=2).remote(1)``."""
        _options.check(options, is_actor=False)
        return _Optioned(self, self._prepare({**self._defaults, **options}))

    def _remote(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.options(**options).remote(*args, **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> DAGNode:
        """Return a node of a graph, which calls the function when the graph is executed."""
        from mobula.dag import FunctionNode

        return FunctionNode(self.remote, args, kwargs)

    def _export(self, retried: tuple[type[BaseException], ...]) -> _mobula.Function:
        """The function as workers get it, where only exceptions of some classes are retried, if any are named."""
        exported = self._exported.get(retried)
        if exported is None:
            function = Retried(self._function, retried) if retried else self._function
            exported = self._exported[retried] = _mobula.Function(self._name, f"remote function {self._name}", function)
        return exported

    def _prepare(self, options: dict[str, Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
        """What is the same for all calls with these options."""
        of_ray = _session.cluster()
        if of_ray is not None:
            of_cluster: Callable[[tuple[Any, ...], dict[str, Any]], Any] = of_ray.function(self._function, options)
            return of_cluster
        wanted, prepared = options.get("num_returns"), _options.of_task(options)
        num_returns = _options.num_returns_of(self._function, wanted)
        in_flight_max = max(1, options.get("_generator_backpressure_num_objects") or IN_FLIGHT_MAX)
        signature = of_function(self._function)
        retried = _retried(options.get("retry_exceptions"), inspect.isgeneratorfunction(self._function))

        def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not _mobula.is_initialized():
                cluster = ensure()
                if cluster is not None:
                    return cluster.function(self._function, options)(args, kwargs)
            if signature is not None:
                signature.check(args, kwargs)
            result = self._export(retried).call(args, kwargs or None, prepared, num_returns, in_flight_max)
            return ObjectRefGenerator(result) if num_returns == -1 else result

        # A program may put something of its own around its calls.
        decorator = getattr(self._function, "__ray_invocation_decorator__", None)
        return call if decorator is None else decorator(call)

    def __reduce__(self) -> Any:
        return (RemoteFunction, (self._function, self._defaults))


class _Optioned(Generic[P, R]):
    """A remote function with other options."""

    def __init__(self, function: RemoteFunction[P, R], call: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> None:
        self._of, self._call = function, call

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Call the function with these options."""
        return self._call(args, kwargs)  # type: ignore[no-any-return]

    def bind(self, *args: Any, **kwargs: Any) -> DAGNode:
        """Return a node of a graph, which calls the function with these options when the graph is executed."""
        from mobula.dag import FunctionNode

        return FunctionNode(self.remote, args, kwargs)


def _retried(option: Any, is_generator: bool) -> tuple[type[BaseException], ...]:
    """The classes of the errors that are retried, where the core cannot tell: it retries all errors, or none."""
    if isinstance(option, list | tuple):
        return tuple(option)
    # An error behind the first results of a generator is a result, unless it is retried.
    return (Exception,) if option and is_generator else ()
