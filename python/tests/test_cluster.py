"""One program on this package, and on Ray's own. If this fails, a program must be rewritten to run on a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import mobula

PROGRAM = Path(__file__).with_name("cluster_program.py")


# Clusters of Ray admit programs with a token: the one of this test's own cluster.
OF_CLUSTER = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def run(address: str | None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program at an address."""
    path = [str(Path(mobula.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
    environment.pop("MOBULA_ADDRESS", None)
    if address is not None:
        environment["MOBULA_ADDRESS"] = address
    return subprocess.run([sys.executable, PROGRAM], env=environment, capture_output=True, text=True, timeout=300)


def test_the_program_gives_the_same_on_both() -> None:
    here = run(None)
    assert here.returncode == 0, here.stderr
    assert len(here.stdout.splitlines()) > 10
    if PathFinder.find_spec("ray") is None:
        pytest.skip("Ray's own package is not installed: the program ran on mobula alone")
    there = run("ray:local")
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A cluster of Ray that runs already: its addresses, by the ways to join it."""
    if PathFinder.find_spec("ray") is None:
        pytest.skip("Ray's own package is not installed")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    # Ray's paths of sockets have a limit.
    directory = tempfile.mkdtemp(prefix="ray")
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    options = ["--head", "--port=0", "--num-cpus=4", "--include-dashboard=false", f"--temp-dir={directory}"]
    started = subprocess.run(
        [*command, "start", *options, f"--ray-client-server-port={port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **OF_CLUSTER},
    )
    assert started.returncode == 0, started.stdout
    found = re.search(r"--address='([^']+)'", started.stdout)
    assert found, started.stdout
    try:
        yield {"there": f"ray:{found[1]}", "client": f"ray://127.0.0.1:{port}"}
    finally:
        end_processes_of(directory)
        shutil.rmtree(directory, ignore_errors=True)


def end_processes_of(directory: str) -> None:
    """End the processes of a cluster of Ray. `ray stop` would end those of all clusters of this machine."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if directory.encode() in (place / "cmdline").read_bytes():
                os.kill(int(place.name), signal.SIGKILL)


@pytest.mark.parametrize("way", ["there", "client"])
def test_the_program_joins_a_cluster_that_runs(cluster: dict[str, str], way: str) -> None:
    if way == "client":
        pytest.importorskip("grpc", reason="clients of Ray need grpc: pip install 'ray[client]'")
    others = {"WITHOUT_STREAMS": "1"} if way == "client" else {}
    here, there = run(None, **others), run(cluster[way], **OF_CLUSTER, **others)
    for _ in range(3):
        # Ray gives the process that serves a client 30 s to start.
        if "Starting Ray client server failed" in there.stderr:
            there = run(cluster[way], **OF_CLUSTER, **others)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout


def test_without_ray_the_error_says_what_to_do() -> None:
    if PathFinder.find_spec("ray") is not None:
        pytest.skip("Ray's own package is installed")
    done = run("ray:auto")
    assert done.returncode != 0
    assert "pip install ray" in done.stderr
