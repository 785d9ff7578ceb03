"""The ways in which a program is run: as a module, in a notebook, in a terminal. If these fail, its functions are not
found in workers, its output is lost, or Ctrl-C does not end it."""

from __future__ import annotations

import os
import pty
import queue
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODULE = """
import mobula as ray
from pkg.numbers import Base, double


class Point(Base):
    pass


@ray.remote
def moved(point):
    return Point(point.x + double(1))


@ray.remote
class Keeper:
    def keep(self, point):
        self.point = point
        return self

    def kept(self):
        return type(self.point).__name__, self.point.x


def main():
    point = ray.get(moved.remote(Point(1)))
    assert isinstance(point, Point), type(point)
    keeper = Keeper.remote()
    keeper.keep.remote(point)
    print(point.x, ray.get(keeper.kept.remote()), __name__)


if __name__ == "__main__":
    main()
"""


def test_a_module_is_the_driver(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text(
        "class Base:\n    def __init__(self, x):\n        self.x = x\n\n\ndef double(x):\n    return 2 * x\n"
    )
    (package / "prog.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "pkg.prog"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3 ('Point', 3) __main__\n"), done.stderr


CELLS = [
    "import mobula as ray\nimport os\nray.init(num_cpus=2)",
    "factor = 2\ndef scale(x):\n    return factor * x",
    "@ray.remote\ndef times(x):\n    print('a worker computes', x)\n    return scale(x), os.getpid()",
    "value, pid = ray.get(times.remote(21))\nassert pid != os.getpid()\nprint('result', value)",
    # A function that is defined again, with what it refers to.
    "factor = 3\n@ray.remote\ndef times(x):\n    return scale(x) + 1\nprint('again', ray.get(times.remote(21)))",
    "@ray.remote\nclass Counter:\n    n = 0\n    def add(self):\n        self.n += 1\n        return self.n",
    "counter = Counter.remote()\nprint('counted', ray.get([counter.add.remote() for _ in range(3)]))",
    "@ray.remote\ndef fails():\n    raise KeyError('of a cell')\ntry:\n    ray.get(fails.remote())\n"
    "except KeyError as error:\n    print('error', 'in fails' in str(error))",
]
PRINTED = ["result 42", "again 64", "counted [1, 2, 3]", "error True"]

SHELL = f"""
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in {CELLS!r}:
    shell.run_cell(cell).raise_error()
shell.run_cell("ray.shutdown()")
"""


def test_cells_of_ipython() -> None:
    pytest.importorskip("IPython")
    done = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A line of a worker may come between two parts of a line of the shell, which `print` writes apart.
    assert re.search(r"\(times pid=\d+\) a worker computes 21\n", done.stdout), done.stdout
    assert [text for text in PRINTED if text in re.sub(r"\(times pid=.*\n", "", done.stdout)] == PRINTED, done.stdout


@pytest.fixture
def kernel() -> Iterator[Any]:
    """A client of a kernel, as a notebook has one."""
    pytest.importorskip("ipykernel")
    manager_of = pytest.importorskip("jupyter_client.manager")
    manager, client = manager_of.start_new_kernel(kernel_name="python3", startup_timeout=120)
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_cells_of_a_notebook(kernel: Any) -> None:
    output: list[str] = []

    def listen(until: Any) -> None:
        """Take what the kernel shows."""
        end = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end, "".join(output)
            try:
                message = kernel.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            assert message["msg_type"] != "error", message["content"]
            if message["msg_type"] == "stream":
                output.append(message["content"]["text"])

    for cell in CELLS:
        reply = kernel.execute_interactive(cell, timeout=60, output_hook=lambda _: None, store_history=False)
        assert reply["content"]["status"] == "ok", reply["content"]
    # The output of cells again: the hook above has thrown it away, and that of workers comes at any time.
    printing = (
        "print(*[ray.get(times.remote(n)) for n in (1, 2)])\n@ray.remote\ndef speak():\n    print('from a worker')"
    )
    kernel.execute(printing)
    listen(lambda: "4 7\n" in "".join(output))
    kernel.execute("ray.get(speak.remote())")
    listen(lambda: ") from a worker\n" in "".join(output))
    assert "(speak pid=" in "".join(output)
    reply = kernel.execute_interactive("ray.shutdown()", timeout=60, output_hook=lambda _: None)
    assert reply["content"]["status"] == "ok"


INTERRUPTED = """
import os
import time
import mobula as ray

@ray.remote
def pid():
    return os.getpid()

@ray.remote
def sleeps():
    time.sleep(3600)

ray.init(num_cpus=1)
worker = ray.get(pid.remote())
try:
    print("begun", flush=True)
    ray.get(sleeps.remote())
except KeyboardInterrupt:
    print("interrupted", worker, flush=True)
# The second one ends the program. Python sees no signal that comes just before a sleep begins, so sleeps are short.
while True:
    time.sleep(0.1)
"""


def is_there(pid: int) -> bool:
    """Whether a process lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_twice_in_a_terminal() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", INTERRUPTED])
    output = b""

    def read_until(text: bytes) -> None:
        nonlocal output
        end = time.monotonic() + 60
        while text not in output:
            assert time.monotonic() < end, output
            if select.select([terminal], [], [], 1)[0]:
                try:
                    output += os.read(terminal, 4096)
                except OSError:
                    # The program has closed its end.
                    return

    try:
        read_until(b"begun")
        # As a person types it: the terminal sends SIGINT to the process group in the foreground.
        os.write(terminal, b"\x03")
        read_until(b"interrupted ")
        while not (found := re.search(rb"interrupted (\d+)\r?\n", output)):
            output += os.read(terminal, 4096)
        worker = int(found[1])
        assert is_there(worker), "the signal is for the program alone"
        os.write(terminal, b"\x03")
        read_until(b"KeyboardInterrupt")
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) in (-signal.SIGINT, 130)
        end = time.monotonic() + 60
        while is_there(worker):
            assert time.monotonic() < end, "its worker ends with it"
            time.sleep(0.01)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
