"""``Pool`` under the name that it has in Ray: see ``mobula.multiprocessing``.

Other names are those of the standard library.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from mobula.multiprocessing import AsyncResult, IMapIterator, Pool, TimeoutError

__all__ = ["AsyncResult", "IMapIterator", "Pool", "TimeoutError"]


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing, name)
