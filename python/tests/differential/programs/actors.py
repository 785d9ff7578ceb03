"""Actors: their state, their methods, their order, their handles."""

from __future__ import annotations

import abc
import time
from typing import Any, Generic, TypeVar

import ray

from programs import raised, said

T = TypeVar("T")


@ray.remote
class _Counter:
    """Counts."""

    kind = "counter"

    def __init__(self, value: int = 0, *, step: int = 1) -> None:
        self.value, self.step = value, step

    def add(self, n: int = 1) -> int:
        self.value += n * self.step
        return self.value

    def get(self) -> int:
        return self.value

    def pair(self) -> tuple[int, int]:
        return self.value, self.step

    def me(self) -> Any:
        return ray.get_runtime_context().current_actor

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


def state() -> Any:
    counter = _Counter.remote(5)
    return [ray.get(counter.add.remote()), ray.get(counter.add.remote(10)), ray.get(counter.get.remote())]


def calls_run_in_order() -> Any:
    counter = _Counter.remote()
    return ray.get([counter.add.remote() for _ in range(100)])


def two_actors_have_two_states() -> Any:
    a, b = _Counter.remote(), _Counter.remote(100)
    ray.get([a.add.remote(), b.add.remote(), a.add.remote()])
    return ray.get([a.get.remote(), b.get.remote()])


def arguments_of_the_constructor() -> Any:
    actors = [_Counter.remote(), _Counter.remote(3), _Counter.remote(value=4, step=2), _Counter.remote(ray.put(9))]
    return ray.get([actor.pair.remote() for actor in actors])


def arguments_of_methods() -> Any:
    return ray.get(_Counter.remote().echo.remote(1, ray.put(2), a=3, b=ray.put(4)))


def references_within_arguments() -> Any:
    (found,), _ = ray.get(_Counter.remote().echo.remote([ray.put(1)]))
    return type(found[0]).__name__, ray.get(found[0])


def references_wait_in_the_queue() -> Any:
    @ray.remote
    def late() -> int:
        time.sleep(0.3)
        return 10

    counter = _Counter.remote()
    refs = [counter.add.remote(late.remote()), counter.add.remote(1)]
    return sorted(ray.get(refs)), ray.get(counter.get.remote())


def several_results() -> Any:
    counter = _Counter.remote(1)
    a, b = counter.pair.options(num_returns=2).remote()
    return ray.get([a, b])


def the_decorator_method() -> Any:
    @ray.remote
    class Pairs:
        @ray.method(num_returns=2)
        def pair(self) -> tuple[int, int]:
            return 1, 2

    pairs = Pairs.remote()
    refs = pairs.pair.remote()
    return len(refs), ray.get(refs), ray.get(pairs.pair.options(num_returns=1).remote())


def the_decorator_method_with_wrong_options() -> Any:
    return raised(lambda: ray.method(wrong=1))


def a_direct_call_of_a_class() -> Any:
    return said(lambda: _Counter())


def a_direct_call_of_a_method() -> Any:
    counter = _Counter.remote()
    return said(lambda: counter.add())


def wrong_arguments_of_the_constructor() -> Any:
    return raised(lambda: _Counter.remote(1, 2)), raised(lambda: _Counter.remote(wrong=1))


def wrong_arguments_of_a_method() -> Any:
    counter = _Counter.remote()
    return (
        raised(lambda: counter.add.remote(1, 2)),
        raised(lambda: counter.get.remote(1)),
        ray.get(counter.get.remote()),
    )


def texts_of_wrong_arguments() -> Any:
    counter = _Counter.remote()
    return (
        said(lambda: counter.add.remote(1, 2)),
        said(lambda: counter.add.remote(x=2)),
        said(lambda: _Counter.remote(1, 2)),
    )


def a_class_without_a_constructor() -> Any:
    @ray.remote
    class Plain:
        def hello(self) -> str:
            return "hello"

    return ray.get(Plain.remote().hello.remote()), raised(lambda: Plain.remote(1))


def inheritance() -> Any:
    class Base:
        def __init__(self) -> None:
            self.base = "base"

        def who(self) -> str:
            return "base"

        def inherited(self) -> str:
            return self.base

    @ray.remote
    class Derived(Base):
        def who(self) -> str:
            return f"derived of {super().who()}"

    actor = Derived.remote()
    return ray.get([actor.who.remote(), actor.inherited.remote()])


def a_subclass_of_an_actor_class() -> Any:
    def derive() -> None:
        class Derived(_Counter):  # type: ignore[misc, valid-type]
            pass

    return raised(derive)


def abstract_classes() -> Any:
    class Base(abc.ABC):
        @abc.abstractmethod
        def f(self) -> int: ...

    class Full(Base):
        def f(self) -> int:
            return 5

    return ray.get(ray.remote(Full).remote().f.remote()), raised(lambda: ray.get(ray.remote(Base).remote().f.remote()))


def generic_classes() -> Any:
    class Box(Generic[T]):
        def __init__(self, value: T) -> None:
            self.value = value

        def get(self) -> T:
            return self.value

    return ray.get(ray.remote(Box).remote("in").get.remote())


def remote_as_a_function() -> Any:
    class Plain:
        def f(self) -> int:
            return 1

    return (
        ray.get(ray.remote(Plain).remote().f.remote()),
        ray.get(ray.remote(num_cpus=0)(Plain).remote().f.remote()),
        Plain().f(),
    )


def static_and_class_methods() -> Any:
    @ray.remote
    class Methods:
        count = 3

        @staticmethod
        def static(x: int) -> int:
            return x + 1

        @classmethod
        def of_class(cls) -> int:
            return cls.count

        @property
        def value(self) -> int:
            return 4

        def read(self) -> int:
            return self.value

    actor = Methods.remote()
    return ray.get([actor.static.remote(1), actor.of_class.remote(), actor.read.remote()])


def a_property_is_no_method() -> Any:
    @ray.remote
    class Methods:
        @property
        def value(self) -> int:
            return 4

    actor = Methods.remote()
    return raised(lambda: actor.value)


def attributes_are_no_methods() -> Any:
    counter = _Counter.remote()
    return raised(lambda: counter.value), raised(lambda: counter.kind)


def the_method_call() -> Any:
    @ray.remote
    class Callable:
        def __call__(self, x: int) -> int:
            return x * 2

    return ray.get(Callable.remote().__call__.remote(4))


def private_methods() -> Any:
    @ray.remote
    class Hidden:
        def _one(self) -> int:
            return 1

        def __two(self) -> int:
            return 2

        def both(self) -> int:
            return self._one() + self.__two()

    actor = Hidden.remote()
    return ray.get([actor._one.remote(), actor.both.remote()])


def methods_call_each_other() -> Any:
    @ray.remote
    class Inner:
        def helper(self) -> int:
            return 5

        def f(self) -> int:
            return self.helper() * 2

    return ray.get(Inner.remote().f.remote())


def handles_as_arguments() -> Any:
    @ray.remote
    def use(counter: Any, n: int) -> int:
        return ray.get(counter.add.remote(n))

    counter = _Counter.remote()
    ray.get([use.remote(counter, 1), use.remote(counter, 2)])
    return ray.get(counter.get.remote())


def handles_within_values() -> Any:
    @ray.remote
    def use(values: dict[str, Any]) -> int:
        return ray.get(values["counters"][0].add.remote(5))

    return ray.get(use.remote({"counters": [_Counter.remote(1)]}))


def handles_as_results() -> Any:
    @ray.remote
    def make() -> Any:
        return _Counter.remote(7)

    counter = ray.get(make.remote())
    return type(counter).__name__, ray.get(counter.add.remote())


def handles_in_the_store() -> Any:
    counter = _Counter.remote(7)
    again = ray.get(ray.put(counter))
    return ray.get(again.add.remote()), again == counter, hash(again) == hash(counter)


def handles_of_different_actors() -> Any:
    a, b = _Counter.remote(), _Counter.remote()
    return a == b, a == a, len({a, b, a})


def functions_capture_handles() -> Any:
    counter = _Counter.remote()

    @ray.remote
    def use() -> int:
        return ray.get(counter.add.remote())

    return sorted(ray.get([use.remote() for _ in range(3)]))


def an_actor_with_a_handle_to_itself() -> Any:
    counter = _Counter.remote(3)
    return ray.get(ray.get(counter.me.remote()).get.remote())


def actors_of_actors() -> Any:
    @ray.remote
    class Parent:
        def __init__(self) -> None:
            self.child = _Counter.remote(10)

        def add(self) -> int:
            return ray.get(self.child.add.remote())

        def get_child(self) -> Any:
            return self.child

    parent = Parent.remote()
    return ray.get(parent.add.remote()), ray.get(ray.get(parent.get_child.remote()).get.remote())


def actors_call_each_other() -> Any:
    @ray.remote
    class Node:
        def set_next(self, other: Any) -> None:
            self.other = other

        def send(self, hops: int) -> int:
            return 0 if hops == 0 or self.other is None else 1 + ray.get(self.other.send.remote(hops - 1))

    nodes = [Node.remote() for _ in range(3)]
    ray.get([node.set_next.remote(other) for node, other in zip(nodes, [*nodes[1:], None], strict=True)])
    return ray.get(nodes[0].send.remote(10))


def calls_of_several_callers_are_each_in_order() -> Any:
    @ray.remote
    class Log:
        def __init__(self) -> None:
            self.entries: list[tuple[int, int]] = []

        def add(self, who: int, n: int) -> None:
            self.entries.append((who, n))

        def get(self) -> list[tuple[int, int]]:
            return self.entries

    @ray.remote
    def write(log: Any, who: int) -> None:
        ray.get([log.add.remote(who, n) for n in range(20)])

    log = Log.remote()
    ray.get([write.remote(log, who) for who in range(3)])
    entries = ray.get(log.get.remote())
    return [[n for who, n in entries if who == writer] == list(range(20)) for writer in range(3)]


def an_actor_lives_while_a_call_runs() -> Any:
    return ray.get(_Counter.remote(1).add.remote())


def options_of_an_actor() -> Any:
    return ray.get(_Counter.options(num_cpus=0.5).remote(2).get.remote())


def the_class_has_its_attributes() -> Any:
    return _Counter.__doc__, type(_Counter).__name__.startswith("ActorClass"), _Counter.kind


def a_handle_as_text() -> Any:
    return repr(_Counter.remote()).startswith("Actor(_Counter, ")


def a_handle_has_a_list_of_methods() -> Any:
    found = dir(_Counter.remote())
    return [name in found for name in ("add", "get", "pair", "missing", "__init__")]


def the_state_is_not_changed_from_outside() -> Any:
    values = [1]

    @ray.remote
    class Keeps:
        def __init__(self, values: list[int]) -> None:
            self.values = values

        def get(self) -> list[int]:
            return self.values

    actor = Keeps.remote(values)
    values.append(2)
    ray.get(actor.get.remote()).append(3)
    return ray.get(actor.get.remote())


def methods_as_streams() -> Any:
    @ray.remote
    class Streams:
        def numbers(self, n: int) -> Any:
            for i in range(n):  # noqa: UP028
                yield i

    return [ray.get(ref) for ref in Streams.remote().numbers.remote(4)]


def a_function_on_the_state() -> Any:
    counter = _Counter.remote(6)
    return ray.get(counter.__ray_call__.remote(lambda state, n: state.value + n, 4)), ray.get(
        counter.__ray_ready__.remote()
    )
