"""``Pool`` under the name that it has in Ray: see ``mobula.multiprocessing``."""

from mobula.multiprocessing import AsyncResult, IMapIterator, Pool, TimeoutError

__all__ = ["AsyncResult", "IMapIterator", "Pool", "TimeoutError"]
