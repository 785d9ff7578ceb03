"""Programs that say ``import ray``. If this fails, they need changes, or get another package or a second copy of it."""

from __future__ import annotations

import os
import subprocess
import sys

import mobula
from mobula.compat import PATH


def run(script: str, path: str | None = None) -> str:
    """Run a script, and return what it prints."""
    places = [entry for entry in (path, os.path.dirname(os.path.dirname(mobula.__file__))) if entry]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-"], input=script, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PROGRAM = """
import ray
import ray.cloudpickle
from ray._raylet import ObjectRefGenerator
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError
from ray.util import ActorPool
import mobula

assert ray is mobula and ray.util.actor_pool.ActorPool is ActorPool
assert RayTaskError is mobula.exceptions.RayTaskError
assert mobula.exceptions.__spec__.name == "mobula.exceptions"

ray.init(num_cpus=1, log_to_driver=False)

@ray.remote
def f(x):
    import ray.util.actor_pool

    assert ray.util.actor_pool.ActorPool is ActorPool
    return ray.get(ray.put(x)) + 1

assert ray.get(f.remote(1)) == 2
print("done")
"""


def test_the_directory_makes_ray_importable() -> None:
    assert run(PROGRAM, PATH) == "done"


def test_the_module_makes_ray_importable() -> None:
    assert run(f"import mobula.compat.ray\n{PROGRAM}") == "done"


def test_the_name_can_be_imported_again() -> None:
    # Programs that test themselves take modules out, and import them again.
    again = "import sys, ray, mobula\nsys.modules.pop('ray')\nimport ray as again\nprint(again is mobula)"
    assert run(again, PATH) == "True"


def test_the_command_prints_the_directory() -> None:
    assert run("import runpy; runpy.run_module('mobula.compat', run_name='__main__')") == PATH


def test_without_it_nothing_is_called_ray() -> None:
    assert run("import sys, mobula\nprint('ray' in sys.modules)") == "False"


def test_another_ray_is_not_replaced(tmp_path: object) -> None:
    other = os.path.join(str(tmp_path), "ray.py")
    with open(other, "w") as file:
        file.write("")
    script = "import ray\ntry:\n    import mobula.compat.ray\nexcept ImportError as error:\n    print(error)"
    assert other in run(script, str(tmp_path))
