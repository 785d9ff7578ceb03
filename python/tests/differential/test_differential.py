"""Small programs give what they give with Ray's own package. If this fails, a program of Ray gets something else here.

What Ray gives is recorded in ``recorded``. ``differences.py`` lists what is meant to differ, with reasons.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from differences import DIFFERENCES

from mobula.compat import PATH

HERE = Path(__file__).parent
RECORDED: dict[str, dict[str, str]] = {
    file.stem: json.loads(file.read_text()) for file in sorted((HERE / "recorded").glob("*.json"))
}

# For all programs of an area together, on a machine that does something else, too.
SECONDS_MAX = 240


def run(area: str) -> dict[str, str]:
    """Run the programs of an area in one process, and return what each gives."""
    places = [PATH, str(Path(PATH).parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, HERE / "run.py", area],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Future[dict[str, str]]]]:
    """What the programs give, some areas at once."""
    with ThreadPoolExecutor(3) as pool:
        yield {area: pool.submit(run, area) for area in RECORDED}


@pytest.mark.parametrize("area", RECORDED)
def test_programs_give_what_they_give_with_ray(area: str, found: dict[str, Future[dict[str, str]]]) -> None:
    meant, given = DIFFERENCES.get(area, {}), found[area].result()
    # A program that is not recorded is not compared: record it.
    assert list(given) == list(RECORDED[area])
    wanted = {name: meant[name][0] if name in meant else of_ray for name, of_ray in RECORDED[area].items()}
    different = {name: {"wanted": wanted[name], "found": given[name]} for name in wanted if given[name] != wanted[name]}
    assert not different, json.dumps(different, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("area", DIFFERENCES)
def test_what_is_meant_to_differ_does(area: str) -> None:
    for name, (text, reason) in DIFFERENCES[area].items():
        assert text != RECORDED[area][name], f"{area}.{name} is as with Ray: take it out of the differences"
        assert reason
