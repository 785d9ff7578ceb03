"""Importing this module makes ``ray`` a name of the package ``mobula``, in this process and in its workers."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import mobula
from mobula.compat import PATH

# The modules that are called otherwise here.
_OTHER_NAMES = {"ray._raylet": "mobula.compat._raylet"}


class _Alias(Loader):
    """Gives a module that has another name of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import has given the module the specification of the alias.
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds ``ray.x`` where there is ``mobula.x``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("ray."):
            return None
        name = _OTHER_NAMES.get(fullname, f"mobula{fullname.removeprefix('ray')}")
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        return ModuleSpec(fullname, _Alias(name), is_package=found.submodule_search_locations is not None)


def install() -> None:
    """Make ``ray`` a name of this package. Importing the module does it, too."""
    there = sys.modules.get("ray")
    if there is mobula:
        return
    if there is not None:
        raise ImportError(
            f"the package ray of {there.__file__} is imported already: import mobula.compat.ray before it"
        )
    sys.modules["ray"] = mobula
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    # Workers have the path of their driver, so `import ray` finds this package there, too.
    if PATH not in sys.path:
        sys.path.insert(0, PATH)


install()
