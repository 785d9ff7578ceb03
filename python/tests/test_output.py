"""What workers print: a notebook, a test or a program that captures its output would not see it, or would see torn
lines in another order, or without the name of the function that printed them."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import mobula as ray

LINE = re.compile(r"^\((?P<name>[\w.<>]+) pid=(?P<pid>\d+)\) (?P<text>.*)$")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


@ray.remote
def say(texts: list[str]) -> None:
    for text in texts:
        print(text)


@ray.remote
def complain(text: str) -> None:
    print(text, file=sys.stderr)


@ray.remote
class Speaker:
    def say(self, text: str) -> None:
        print(text)


def test_capsys_sees_what_workers_print(session: None, capsys: pytest.CaptureFixture[str]) -> None:
    seen = io.StringIO()

    def has(text: str) -> bool:
        found = capsys.readouterr()
        seen.write(found.out + found.err)
        return text in seen.getvalue()

    ray.get([say.remote(["one", "two"]), complain.remote("oh"), Speaker.remote().say.remote("ah")])
    for text in ("one", "two", "oh", "ah"):
        wait_for(lambda text=text: has(text))  # type: ignore[misc]
    lines = [LINE.match(line) for line in seen.getvalue().splitlines()]
    assert {(line["name"], line["text"]) for line in lines if line} == {
        ("say", "one"),
        ("say", "two"),
        ("complain", "oh"),
        ("Speaker", "ah"),
    }


def test_lines_come_whole_and_in_order(session: None) -> None:
    texts = [f"{number} " + "ü" * (number % 300) for number in range(2000)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        refs = [say.remote(texts) for _ in range(2)]
        ray.get(refs)
        wait_for(lambda: out.getvalue().count("\n") == 4000)
    by_process: dict[str, list[str]] = {}
    for line in out.getvalue().splitlines():
        matched = LINE.match(line)
        assert matched, line
        by_process.setdefault(matched["pid"], []).append(matched["text"])
    # Both calls may have run in one process, one behind the other.
    assert all(found in (texts, texts * 2) for found in by_process.values())


@ray.remote
def begin(text: str) -> None:
    print(text, end=" ")
    print(text, end=" ", file=sys.stderr)


def test_a_line_without_an_end_appears_after_the_call(session: None) -> None:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        ray.get(begin.remote("half"))
        wait_for(lambda: "half" in out.getvalue() and "half" in error.getvalue())
    for written in (out, error):
        line = LINE.match(written.getvalue())
        assert line and line["text"] == "half "


def test_an_output_that_cannot_take_a_letter_gets_another(session: None) -> None:
    raw = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding="ascii", write_through=True)) as out:
        ray.get(say.remote(["manta ü"]))
        wait_for(lambda: b"manta ?" in raw.getvalue())
        out.detach()


def test_an_output_that_raises_loses_its_lines_alone(session: None) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("the disk is full")

    with contextlib.redirect_stdout(Broken()):
        ray.get([say.remote(["lost"] * 1000) for _ in range(4)])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        ray.get(say.remote(["here"]))
        wait_for(lambda: "here" in out.getvalue())


def test_a_program_without_a_captured_output_writes_it_itself() -> None:
    program = """
import mobula as ray
@ray.remote
def say(text):
    print(text)
ray.get([say.remote(f"line {number}") for number in range(100)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(line.partition(") ")[2] for line in done.stdout.splitlines()) == sorted(
        f"line {number}" for number in range(100)
    )
