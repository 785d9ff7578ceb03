"""The package ``ray`` for tests that were written for Ray: ``mobula``, and the helpers that such tests import.

``PYTHONPATH=python/tests/raypath`` puts it first. The helpers do what those of Ray do, or say that they cannot. They
are no part of the distribution.
"""

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

_here = os.path.dirname(os.path.abspath(__file__))
del sys.modules[__name__]

import mobula.compat  # noqa: E402
from mobula.compat.ray import install  # noqa: E402

install()
# Workers take the path of their driver: they shall find this package first, too.
sys.path.remove(mobula.compat.PATH)
sys.path.append(mobula.compat.PATH)


class HelperFinder(MetaPathFinder):
    """Finds modules of Ray that mobula does not have."""

    def find_spec(self, fullname, path=None, target=None):
        package, *within = fullname.split(".")
        return PathFinder.find_spec(fullname, [os.path.join(_here, *within[:-1])]) if package == "ray" else None


if not any(type(finder).__name__ == "HelperFinder" for finder in sys.meta_path):
    sys.meta_path.append(HelperFinder())
