"""Programs that say ``import ray`` run on this package without a change.

There are two ways. In the program, before the first ``import ray``::

    import mobula.compat.ray

or from outside, which reaches the Python processes that the program starts, too: by the command
``PYTHONPATH=$(python -m mobula.compat) python program.py``.

Either way ``ray`` is the module ``mobula`` itself, ``ray.util`` is ``mobula.util``, and so on: there is one copy of
everything, and an error that is caught as ``ray.exceptions.RayTaskError`` is ``mobula.exceptions.RayTaskError``.
Nothing is called ``ray`` unless one of the two is done.
"""

from __future__ import annotations

import os

__all__ = ["PATH"]

#: The directory with the package ``ray``, for ``PYTHONPATH`` and ``sys.path``.
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "path")
