"""The examples in the documentation of the package. If this fails, somebody who copies one gets an error."""

from __future__ import annotations

import ast
import doctest
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mobula

PACKAGE = Path(mobula.__file__).parent

# Examples that need something which this test does not have, and the tests that run the same.
OTHERWISE = {
    "rust.py": "a Rust program: test_rust.py",
    "_shared.py:shared": "PyTorch: test_shared.py",
    "pytest_plugin.py": "a test file: test_pytest_plugin.py",
}
# The functions and classes that a person reads about first.
MUST_HAVE = {
    "__init__.py",
    "_actor.py:get_actor",
    "_actor.py:kill",
    "_actor.py:method",
    "_actor.py:exit_actor",
    "_context.py:get_runtime_context",
    "_function.py:RemoteFunction.options",
    "_objects.py:cancel",
    "_objects.py:get",
    "_objects.py:put",
    "_objects.py:wait",
    "_recorded.py:mark",
    "_recorded.py:span",
    "_remote.py:remote",
    "_session.py:init",
    "_session.py:shutdown",
    "_shared.py:shared",
    "_stream.py:ObjectRefGenerator",
    "futures.py",
    "joblib.py",
    "multiprocessing.py",
    "plasma.py",
    "util/actor_group.py:ActorGroup",
    "util/actor_pool.py:ActorPool",
    "util/check_serialize.py:inspect_serializability",
    "util/helpers.py:as_completed",
    "util/helpers.py:map_unordered",
    "util/iter.py",
    "util/metrics.py",
    "util/multiprocessing.py",
    "util/placement_group.py:placement_group",
    "util/queue.py:Queue",
    "util/scheduling_strategies.py:PlacementGroupSchedulingStrategy",
    "util/state/__init__.py",
}


def documentation(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of a file, with the names of what they are about."""
    place = str(path.relative_to(PACKAGE))

    def look(node: Any, name: str) -> Iterator[tuple[str, str]]:
        text = ast.get_docstring(node)
        if text:
            yield f"{place}:{name}" if name else place, text
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from look(child, f"{name}.{child.name}" if name else child.name)

    yield from look(ast.parse(path.read_text()), "")


def blocks(text: str) -> str:
    """The code that is indented behind lines that end with two colons, as one program."""
    found: list[str] = []
    lines = iter([*text.splitlines(), "."])
    line = next(lines)
    while True:
        if not line.endswith("::"):
            line = next(lines, None)  # type: ignore[arg-type]
            if line is None:
                return "\n".join(found)
            continue
        indent, block = len(line) - len(line.lstrip()), []
        for line in lines:
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            block.append(line)
        found.append(textwrap.dedent("\n".join(block)))


EXAMPLES = {
    place: text
    for path in sorted(PACKAGE.rglob("*.py"))
    for place, text in documentation(path)
    if ">>>" in text or blocks(text)
}


def test_what_people_look_up_first_has_an_example() -> None:
    assert MUST_HAVE - EXAMPLES.keys() == set()


def test_blocks_are_found() -> None:
    text = "Words::\n\n    one = 1\n\n    two = 2\nMore words. ::\n\n    three = 3\n\nArgs:\n    a: b\n"
    names: dict[str, Any] = {}
    exec(blocks(text), names)
    assert (names["one"], names["two"], names["three"]) == (1, 2, 3)


@pytest.mark.parametrize("place", sorted(EXAMPLES))
def test_an_example_runs(place: str, fresh: None) -> None:
    if place in OTHERWISE:
        pytest.skip(f"it needs {OTHERWISE[place]}")
    text = EXAMPLES[place]
    # As in a script: its functions travel with their code.
    names: dict[str, Any] = {"__name__": "__main__"}
    code = blocks(text)
    if code:
        exec(compile(code, f"the example of {place}", "exec"), names)
    test = doctest.DocTestParser().get_doctest(text, names, place, None, 0)
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert failed == 0
