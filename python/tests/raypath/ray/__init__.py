"""The package ``ray`` for tests that were written for Ray: ``mobula``, and the helpers that such tests import.

``PYTHONPATH=python/tests/raypath`` puts it first. The helpers do what those of Ray do, or say that they cannot. They
are no part of the distribution.
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
del sys.modules[__name__]

import mobula.compat  # noqa: E402
import mobula.util  # noqa: E402
from mobula.compat.ray import install  # noqa: E402

install()
# Workers take the path of their driver: they shall find this package first, too.
sys.path.remove(mobula.compat.PATH)
sys.path.append(mobula.compat.PATH)
# Modules of Ray that mobula does not have are looked for here.
for _module, _directory in ((mobula, _here), (mobula.util, os.path.join(_here, "util"))):
    if _directory not in _module.__path__:
        _module.__path__.append(_directory)
