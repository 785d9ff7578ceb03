"""Actors: classes whose objects live in a process of their own."""

from __future__ import annotations

import atexit
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mobula import _ids, _mobula, _options, _session
from mobula._methods import METHOD_OPTIONS, OF_CORE, Known, Methods, OfCore, of_core, read
from mobula._session import ensure
from mobula._signature import of_method, takes
from mobula._stream import IN_FLIGHT_MAX, dynamic
from mobula.exceptions import ActorAlreadyExistsError

if TYPE_CHECKING:
    from mobula.dag import ClassNode, DAGNode

T = TypeVar("T")

# The methods of all actors: the first does nothing, the second runs a function on the state, the third ends the actor.
_OF_ALL = ("__ray_ready__", "__ray_call__", "__ray_terminate__")


_METHOD = frozenset(
    {
        "concurrency_group",
        "enable_task_events",
        "max_task_retries",
        "num_returns",
        "retry_exceptions",
        *_options.LIMITS,
        "tensor_transport",
        "_generator_backpressure_num_objects",
        "_num_objects_per_yield",
    }
)


def _check_method(options: dict[str, Any]) -> None:
    """Check the values of the options of a method."""
    _options.check_num_returns(options.get("num_returns"))
    _options.check_retry_exceptions(options.get("retry_exceptions"))
    _options.check_in_flight("_generator_backpressure_num_objects", options.get("_generator_backpressure_num_objects"))
    for name in _options.LIMITS:
        _options.seconds_of(name, options.get(name))
    for name in options.keys() & _options.ABSENT.keys():
        _options.check_absent(name, options[name])


def method(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a method of an actor options.

    They are ``num_returns``, ``concurrency_group``, ``max_task_retries``, ``retry_exceptions`` and
    ``_generator_backpressure_num_objects``, as in Ray, and ``timeout`` and ``deadline``: the most seconds, or a
    ``datetime.timedelta``, that a call may run, and that it may take from its making to its end. ::

        import mobula as ray

        @ray.remote
        class Divider:
            @ray.method(num_returns=2)
            def divide(self, x, y):
                return x // y, x % y

        quotient, rest = Divider.remote().divide.remote(17, 5)
        assert ray.get([quotient, rest]) == [3, 2]
    """
    if not options or options.keys() - _METHOD:
        raise ValueError(f"method has the options {', '.join(sorted(_METHOD))}")
    _check_method(options)

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, METHOD_OPTIONS, options)
        return function

    return mark


class ActorClassInheritanceException(TypeError):
    """A class was derived from an actor class."""


class ActorClass(Generic[T]):
    """A class whose objects live in processes of their own. ``@remote`` returns it."""

    def __init__(self, cls: type[T], options: dict[str, Any]) -> None:
        _options.check(options, is_actor=True)
        self._class, self._defaults = cls, options
        self._methods = Methods(cls)
        self._init_signature = of_method(cls, "__init__")
        self._exported: _mobula.Function | None = None
        self.__name__, self.__qualname__, self.__doc__ = cls.__name__, cls.__qualname__, cls.__doc__
        self.__module__ = cls.__module__

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"Actors cannot be instantiated directly. Instead of '{self.__name__}()', use '{self.__name__}.remote()'."
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise ActorClassInheritanceException(
            f"Attempted to define a subclass of '{self.__name__}', which is an actor class. Inheriting from actor "
            "classes is not currently supported. Derive from the class before it is made an actor class."
        )

    def __getattr__(self, name: str) -> Any:
        # The attributes of the class itself: its methods use them by its name, which stands for the actor class now.
        if name.startswith("_"):
            raise AttributeError(f"the actor class has no attribute {name!r}")
        return getattr(self._class, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._class), "bind", "options", "remote"})

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor, in a process of its own. It ends with its last handle."""
        return self._start(self._defaults, args, kwargs)

    def options(self, **options: Any) -> _OptionedClass[T]:
        """Return the class with other options: ``Counter.options(name="counter").remote()``."""
        _options.check(options, is_actor=True)
        return _OptionedClass(self, {**self._defaults, **options})

    def _remote(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> ActorHandle:
        return self.options(**options).remote(*args, **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """Return a node of a graph: an actor that starts when the graph is first executed."""
        from mobula.dag import ClassNode

        return ClassNode(self.remote, args, kwargs)

    def _start(self, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
        of_ray = ensure()
        if of_ray is not None:
            found: ActorHandle = of_ray.actor(self._class, options, args, kwargs)
            return found
        name = options.get("name")
        if name is not None and not (isinstance(name, str) and name):
            if not isinstance(name, str):
                raise TypeError(f"the name of an actor cannot be {name!r}: text, at least one character")
            raise ValueError("Actor name cannot be an empty string: text, at least one character")
        if options.get("get_if_exists") and name is None:
            raise ValueError("The actor name must be specified to use `get_if_exists`.")
        if inspect.isabstract(self._class):
            missing = ", ".join(sorted(getattr(self._class, "__abstractmethods__", ())))
            raise TypeError(f"Can't instantiate abstract class ActorClass({self.__name__}) with abstract {missing}")
        if self._init_signature is not None:
            self._init_signature.check(args, kwargs)
        if self._exported is None:
            self._exported = _mobula.Function(self.__name__, f"actor {self.__name__}", self._class)
        about = _options.about(self._class, options, self._methods.groups)
        methods, most = self._methods, options.get("max_task_retries") or 0
        known = Known(methods.num_returns, methods.signatures, methods.retries, most)
        known.in_flight, known.of_core = methods.in_flight, methods.of_core
        known.in_flight_max = options.get("_actor_generator_backpressure_num_objects")
        known.is_out_of_order = bool(options.get("allow_out_of_order_execution"))
        # Handles that are found by the name know the methods, too.
        description = None if name is None else known.description()
        try:
            actor = _mobula.Actor(self._exported, _options.of_actor(options, description), about, args, kwargs or None)
        except ValueError as error:
            if "is taken by a living actor" not in str(error):
                raise
            # Programs look for Ray's words.
            raise ActorAlreadyExistsError(f"{error}. Please use a different name") from error
        return ActorHandle(_in_order_of(actor, known), self.__name__, known)

    def __reduce__(self) -> Any:
        return (ActorClass, (self._class, self._defaults))


class _OptionedClass(Generic[T]):
    """An actor class with other options."""

    def __init__(self, cls: ActorClass[T], options: dict[str, Any]) -> None:
        self._of, self._options = cls, options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor with these options."""
        return self._of._start(self._options, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> ClassNode:
        """Return a node of a graph: an actor with these options that starts when the graph is executed first."""
        from mobula.dag import ClassNode

        return ClassNode(self.remote, args, kwargs)


class ActorMethod:
    """A method of an actor, to be called by ``.remote()``."""

    def __init__(
        self,
        actor: _mobula.Actor,
        known: Known,
        name: str,
        num_returns: int,
        in_flight_max: int = IN_FLIGHT_MAX,
        called: str | None = None,
        of_core: OfCore = OF_CORE,
    ) -> None:
        # This holds the actor, and not its handle: `Actor.remote().method.remote()` must keep the actor, and a circle
        # of a handle and its method would keep the actor until the garbage collector runs.
        self._actor, self._known, self._name = actor, known, name
        self._num_returns, self._in_flight_max, self._of_core = num_returns, in_flight_max, of_core
        # The name, and after it the data about the call for the actor's process.
        self._called = called or name

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of running 'object.{self._name}()', try "
            f"'object.{self._name}.remote()'."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method. Calls of one caller run in the order in which they were made."""
        # From now on, calls go to the extension module.
        fits = takes(self._known.signatures.get(self._name))
        is_dynamic = self._num_returns == _options.DYNAMIC
        num_returns = _options.STREAMING if is_dynamic else self._num_returns
        method = _mobula.PreparedMethod(
            self._actor, self._called, num_returns, self._in_flight_max, self._of_core, *fits
        )
        call: Callable[..., Any] = method
        if is_dynamic:

            def call(*args: Any, **kwargs: Any) -> Any:
                return dynamic(method(*args, **kwargs))

        self.__dict__["remote"] = call
        return call(*args, **kwargs)

    def _remote(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.options(**options).remote(*args, **(kwargs or {}))

    def bind(self, *args: Any, **kwargs: Any) -> DAGNode:
        """Return a node of a graph, which calls the method when the graph is executed."""
        from mobula.dag import FunctionNode

        return FunctionNode(self.remote, args, kwargs)

    def options(self, **options: Any) -> ActorMethod:
        """Return the method with other options, such as ``num_returns``."""
        unknown = options.keys() - _METHOD - {"name"}
        if unknown:
            raise ValueError(f"Invalid option keyword {', '.join(sorted(unknown))} for actor methods.")
        _check_method(options)
        num_returns = options.get("num_returns")
        wanted = self._num_returns if num_returns is None else _options.num_returns_of(None, num_returns)
        given = options.get("_generator_backpressure_num_objects")
        in_flight_max = self._known.limited(_options.in_flight_max(given, self._in_flight_max))
        most, exceptions = self._known.retries_of(self._name)
        exceptions = options.get("retry_exceptions", exceptions)
        most = options.get("max_task_retries", most)
        called = self._known.called(self._name, options.get("concurrency_group"), most, exceptions)
        own = of_core(options, self._of_core)
        return ActorMethod(self._actor, self._known, self._name, wanted, in_flight_max, called, own)

    def __reduce__(self) -> Any:
        return (
            ActorMethod,
            (
                *(self._actor, self._known, self._name, self._num_returns, self._in_flight_max),
                *(self._called, self._of_core),
            ),
        )


class _Terminate(ActorMethod):
    """The method of every actor that ends it after the calls that were made before."""

    def remote(self, *_: Any, **__: Any) -> Any:
        """End the actor: its destructor runs, and it is not restarted."""
        return self._actor.terminate()


class ActorHandle:
    """A handle to an actor. The actor ends when the last handle in any process is gone."""

    def __init__(self, actor: _mobula.Actor, class_name: str, known: Known) -> None:
        self._mobula_actor, self._mobula_class_name, self._mobula_known = actor, class_name, known

    def __getattr__(self, name: str) -> ActorMethod:
        # Called once for each method, which is an attribute after that.
        actor, known = self._mobula_actor, self._mobula_known
        if name.startswith("__") and name != "__call__":
            if name == "__ray_terminate__":
                return _Terminate(actor, known, name, 1)
            if name not in _OF_ALL:
                raise AttributeError(name)
            num_returns = 1
        elif name in known.num_returns:
            num_returns = known.num_returns[name]
        else:
            raise AttributeError(f"'{self._mobula_class_name}' object has no attribute '{name}'")
        in_flight_max = known.limited(_options.in_flight_max(known.in_flight.get(name), IN_FLIGHT_MAX))
        called = known.called_by_default(name)
        own = known.of_core.get(name, OF_CORE)
        method = self.__dict__[name] = ActorMethod(actor, known, name, num_returns, in_flight_max, called, own)
        return method

    def __dir__(self) -> list[str]:
        return sorted({"__init__", *_OF_ALL, *self._mobula_known.num_returns})

    def __repr__(self) -> str:
        return f"Actor({self._mobula_class_name}, {self._mobula_actor.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._mobula_actor == other._mobula_actor

    def __hash__(self) -> int:
        return hash(self._mobula_actor)

    @property
    def _actor_id(self) -> Any:
        return _ids.of_actor(self._mobula_actor.hex())

    _ray_actor_id = _actor_id

    def __reduce__(self) -> Any:
        return (ActorHandle, (self._mobula_actor, self._mobula_class_name, self._mobula_known))


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return a handle to the living actor of this name. The handle knows the methods.

    ::

        import mobula as ray

        @ray.remote
        class Counter:
            def __init__(self):
                self.value = 0

            def increment(self):
                self.value += 1
                return self.value

        counter = Counter.options(name="visits").remote()
        assert ray.get(ray.get_actor("visits").increment.remote()) == 1
        assert ray.get(counter.increment.remote()) == 2

    Args:
        name: The name of the actor, within its namespace.
        namespace: The namespace. Default: that of ``init``.

    Raises:
        ValueError: No living actor of the session has the name.
    """
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    of_ray = ensure()
    if of_ray is not None:
        found: ActorHandle = of_ray.ray.get_actor(name, namespace)
        return found
    try:
        return found_by_name(name, namespace)
    except ValueError as error:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named "
            "actor you didn't create. 2. The named actor died. 3. You did not use a namespace matching the namespace "
            "of the actor."
        ) from error


def found_by_name(name: str, namespace: str | None) -> ActorHandle:
    """Return a handle to the living actor of this name, with its methods."""
    actor, description = _mobula.find_actor(name, namespace)
    known = read(description)
    return ActorHandle(_in_order_of(actor, known), actor.class_name(), known)


def _in_order_of(actor: _mobula.Actor, known: Known) -> _mobula.Actor:
    """Return an actor that takes its calls in the order that its options say."""
    return actor.out_of_order() if known.is_out_of_order else actor


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once: calls that wait and later ones fail. Its destructor does not run.

    With ``no_restart=False`` only its process ends, as by a crash: the actor is restarted if its options allow it. ::

        import mobula as ray

        @ray.remote
        class Worker:
            def work(self):
                return "done"

        worker = Worker.remote()
        assert ray.get(worker.work.remote()) == "done"
        ray.kill(worker)
        try:
            ray.get(worker.work.remote())
        except ray.exceptions.RayActorError:
            print("the actor is gone")
    """
    of_ray = _session.cluster()
    if of_ray is not None:
        of_ray.done(of_ray.ray.kill, actor, no_restart=no_restart)
        return
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"ray.kill() only supported for actors. For tasks, try ray.cancel(). Got: {type(actor)}.")
    actor._mobula_actor.kill(no_restart)


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """Return the names of the living actors of this namespace, or of all namespaces, each with its own."""
    of_ray = ensure()
    if of_ray is not None:
        of_cluster: list[str] = of_ray.ray.util.list_named_actors(all_namespaces)
        return of_cluster
    # Actors of the package itself are in a namespace of their own, and are left out.
    found = _mobula.list_named_actors(all_namespaces)
    named = [actor for actor in found if "mobula_internal" not in actor]
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in named]
    return [name for _, name in named]


def exit_actor() -> None:
    """End the actor whose method calls this, for good: it raises ``SystemExit``, which ends the method.

    Exit handlers and the destructor of the state run. The call, calls that wait and later ones fail with
    ``ActorDiedError``. ::

        import mobula as ray

        @ray.remote
        class Worker:
            def leave(self):
                ray.exit_actor()

        try:
            ray.get(Worker.remote().leave.remote())
        except ray.exceptions.ActorDiedError:
            print("it has left")

    Raises:
        TypeError: This process is no actor.
    """
    of_ray = _session.cluster()
    if of_ray is not None:
        of_ray.ray.actor.exit_actor()
    _mobula.exit_actor()
    # The process ends without the end of an interpreter.
    atexit._run_exitfuncs()
    raise SystemExit("exit_actor() is called.")
