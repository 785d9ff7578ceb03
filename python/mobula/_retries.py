"""Results that are errors, and functions with only some errors retried."""

from __future__ import annotations

import inspect
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

from mobula.exceptions import RayTaskError, _raise_of_task


def text_and_pickle(error: BaseException) -> tuple[str, bytes | None]:
    """Return an exception's text with its traceback, and the pickled exception, if it can be pickled and read back."""
    text = "".join(traceback.format_exception(error))
    try:
        from mobula._serialization import dumps

        # The exception of another call is a `RayTaskError`: its cause is sent, so that it is not wrapped twice.
        pickled = dumps(error.cause if isinstance(error, RayTaskError) else error)
        pickle.loads(pickled)
    except Exception:
        pickled = None
    return text, pickled


class Raised:
    """A result that raises when it is read.

    The call that gives it has not failed: its other results are there, and it is not tried again.
    """

    def __init__(self, function_name: str, error: BaseException) -> None:
        text, pickled = text_and_pickle(error)
        self._error = (function_name, os.getpid(), text, pickled)

    def __iter__(self) -> Iterator[Raised]:
        # It is the only item of a stream.
        yield self

    def __reduce__(self) -> Any:
        return (_raise_of_task, self._error)


class Retried:
    """A function that fails only with errors of some classes. Other errors become its results.

    Calls of it may be tried again when they fail, so only errors of these classes are.
    """

    def __init__(self, function: Callable[..., Any], classes: tuple[type[BaseException], ...]) -> None:
        self._function, self._classes = function, classes
        self.__qualname__ = getattr(function, "__qualname__", repr(function))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            result = self._function(*args, **kwargs)
        except self._classes:
            raise
        except Exception as error:
            return Raised(self.__qualname__, error)
        if isinstance(result, GeneratorType):
            return RetriedItems(result, self.__qualname__, self._classes)
        return result


class RetriedItems:
    """The items of such a function. An error that is not retried is the last item."""

    def __init__(
        self, items: GeneratorType[Any, Any, Any], name: str, classes: tuple[type[BaseException], ...]
    ) -> None:
        self._items, self.__qualname__, self._classes = items, name, classes
        self._is_over = False

    def __iter__(self) -> RetriedItems:
        return self

    def __next__(self) -> Any:
        if self._is_over:
            raise StopIteration
        try:
            return next(self._items)
        except StopIteration:
            raise
        except self._classes:
            raise
        except Exception as error:
            self._is_over = True
            return Raised(self.__qualname__, error)

    def close(self) -> None:
        """End the generator."""
        self._items.close()


def described(most: int, exceptions: Any) -> str:
    """Encode the retries of a method as a text: their number (-1: without limit), and the classes of errors."""
    import base64

    from mobula._serialization import dumps

    classes = (Exception,) if exceptions is True else tuple(exceptions)
    return base64.b64encode(dumps((most, classes))).decode()


def read_description(description: str) -> tuple[int, Any]:
    """Return the number of retries and the classes of errors that :func:`described` has encoded."""
    import base64

    most, classes = pickle.loads(base64.b64decode(description))
    return most, classes


def again(method: Callable[..., Any], description: str) -> Callable[..., Any]:
    """Return a method that is called again, in its actor, when it fails with some errors.

    A generator then skips the items that it has given already.
    """
    import itertools

    most, classes = read_description(description)
    attempts = range(most) if most >= 0 else itertools.count()

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        for _ in attempts:
            try:
                return await method(*args, **kwargs)
            except classes:
                pass
        return await method(*args, **kwargs)

    async def async_items(*args: Any, **kwargs: Any) -> Any:
        given = 0
        for attempt in itertools.chain(attempts, (None,)):
            try:
                seen = 0
                async for item in method(*args, **kwargs):
                    seen += 1
                    if seen > given:
                        given = seen
                        yield item
                return
            except classes:
                if attempt is None:
                    raise

    def items(*args: Any, **kwargs: Any) -> Any:
        given = 0
        for attempt in itertools.chain(attempts, (None,)):
            try:
                for item in itertools.islice(method(*args, **kwargs), given, None):
                    given += 1
                    yield item
                return
            except classes:
                if attempt is None:
                    raise

    def call(*args: Any, **kwargs: Any) -> Any:
        for _ in attempts:
            try:
                return method(*args, **kwargs)
            except classes:
                pass
        return method(*args, **kwargs)

    kinds: list[tuple[Callable[[Any], bool], Callable[..., Any]]] = [
        (inspect.iscoroutinefunction, coroutine),
        (inspect.isasyncgenfunction, async_items),
        (inspect.isgeneratorfunction, items),
    ]
    return next((found for is_kind, found in kinds if is_kind(method)), call)


def results(result: Any, count: int) -> list[Any]:
    """Return the results of a call that has several.

    If a generator raises, the results that it has given stay, and the error replaces the others. Surplus results are
    dropped, and missing ones are errors.
    """
    if isinstance(result, Raised):
        return [result] * count
    if isinstance(result, GeneratorType | RetriedItems):
        return _of_generator(result, count)
    if not hasattr(result, "__iter__"):
        raise TypeError(f"the function was to return num_returns={count} objects, and returned one {type(result)}")
    values = list(result)
    if len(values) != count:
        raise ValueError(f"the function was to return num_returns={count} objects, and returned {len(values)} of them")
    return values


def _of_generator(items: GeneratorType[Any, Any, Any] | RetriedItems, count: int) -> list[Any]:
    values: list[Any] = []
    try:
        while len(values) < count:
            values.append(next(items))
            if isinstance(values[-1], Raised):
                break
    except StopIteration:
        error = ValueError(f"the generator was to give num_returns={count} objects, and gave {len(values)} of them")
        values.append(Raised(items.__qualname__, error))
    except Exception as error:
        if not values or isinstance(items, RetriedItems):
            raise
        values.append(Raised(items.__qualname__, error))
    else:
        if len(values) == count and next(items, items) is not items:
            print(f"{items.__qualname__} gives more objects than num_returns={count}: the others are dropped")
            items.close()
    return values + values[-1:] * (count - len(values))
