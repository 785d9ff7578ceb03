"""``util.ActorPool``, ``util.multiprocessing.Pool`` and ``util.joblib``."""

from __future__ import annotations

import os
import time
from typing import Any

import ray
from ray.util import ActorPool
from ray.util.multiprocessing import Pool

from programs import raised, said


@ray.remote(num_cpus=0)
class _Worker:
    def double(self, value: int) -> int:
        return 2 * value

    def fail(self, value: int) -> int:
        if value == 2:
            raise ValueError("two")
        return value

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


def _pool(count: int = 2) -> Any:
    return ActorPool([_Worker.remote() for _ in range(count)])


def _double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


def a_map() -> Any:
    return list(_pool().map(_double, range(6)))


def a_map_without_order() -> Any:
    return sorted(_pool().map_unordered(_double, range(6)))


def a_map_of_nothing() -> Any:
    return list(_pool().map(_double, []))


def submit_and_get_next() -> Any:
    pool = _pool()
    for i in range(4):
        pool.submit(_double, i)
    return [pool.get_next() for _ in range(4)]


def submit_and_get_next_without_order() -> Any:
    pool = _pool()
    for i in range(4):
        pool.submit(_double, i)
    return sorted(pool.get_next_unordered() for _ in range(4))


def has_next_and_has_free() -> Any:
    pool = _pool(1)
    found = [pool.has_next(), pool.has_free()]
    pool.submit(_double, 1)
    found += [pool.has_next(), pool.has_free()]
    pool.get_next()
    return [*found, pool.has_next(), pool.has_free()]


def get_next_of_nothing() -> Any:
    return said(lambda: _pool().get_next()), said(lambda: _pool().get_next_unordered())


def get_next_in_vain() -> Any:
    pool = _pool(1)
    pool.submit(lambda actor, value: actor.sleep.remote(value), 1)
    return raised(lambda: pool.get_next(timeout=0.1)), pool.get_next()


def errors_in_a_pool() -> Any:
    return raised(lambda: list(_pool().map(lambda actor, value: actor.fail.remote(value), range(4))))


def push_and_pop() -> Any:
    pool = _pool(1)
    actor = pool.pop_idle()
    found = [actor is not None, pool.pop_idle(), pool.has_free()]
    pool.push(actor)
    return [*found, pool.has_free(), raised(lambda: pool.push(actor))]


def a_process_pool() -> Any:
    with Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3]), pool.apply(pow, (2, 5)), pool.starmap(pow, [(2, 3), (3, 2)])


def asynchronous_results() -> Any:
    with Pool(2) as pool:
        result, mapped = pool.apply_async(pow, (2, 5)), pool.map_async(abs, [-1, 2])
        found = result.get(timeout=60), mapped.get(timeout=60), result.ready(), result.successful()
        return [*found, pool.starmap_async(pow, [(2, 2)]).get(timeout=60)]


def lazy_maps() -> Any:
    with Pool(2) as pool:
        found = pool.imap(abs, [-1, -2, -3])
        return next(found), list(found), sorted(pool.imap_unordered(abs, range(-5, 0), chunksize=2))


def chunks() -> Any:
    with Pool(2) as pool:
        return pool.map(abs, range(-10, 0), chunksize=3), pool.map(abs, []), pool.map(abs, iter([-1]))


def keyword_arguments() -> Any:
    with Pool(1) as pool:
        return pool.apply(sorted, ([3, 1, 2],), {"reverse": True})


def closures_in_a_pool() -> Any:
    offset = 10
    with Pool(2) as pool:
        return pool.map(lambda x: x + offset, range(3))


def errors_in_a_process_pool() -> Any:
    def fail(value: int) -> int:
        if value == 1:
            raise ValueError("one")
        return value

    with Pool(2) as pool:
        result = pool.apply_async(fail, (1,))
        result.wait(timeout=60)
        return raised(lambda: pool.map(fail, range(3))), raised(result.get), result.successful()


def errors_of_a_lazy_map() -> Any:
    def fail(value: int) -> int:
        if value == 1:
            raise ValueError("one")
        return value

    with Pool(1) as pool:
        found = pool.imap(fail, range(3))
        return next(found), raised(lambda: next(found)), next(found), raised(lambda: next(found))


def callbacks() -> Any:
    good: list[Any] = []
    bad: list[Any] = []

    def fail() -> None:
        raise KeyError("k")

    with Pool(1) as pool:
        pool.apply_async(abs, (-1,), callback=good.append).wait(timeout=60)
        pool.apply_async(fail, error_callback=lambda error: bad.append(isinstance(error, KeyError))).wait(timeout=60)
        deadline = time.monotonic() + 30
        while not (good and bad) and time.monotonic() < deadline:
            time.sleep(0.01)
    return good, bad


def an_initializer() -> Any:
    def begin(value: str) -> None:
        os.environ["BEGUN"] = value

    with Pool(2, begin, ("yes",)) as pool:
        return pool.map(lambda _: os.environ.get("BEGUN"), range(3))


def a_pool_that_is_closed() -> Any:
    pool = Pool(1)
    before = raised(lambda: pool.join())
    pool.close()
    pool.join()
    return before, raised(lambda: pool.map(abs, [1]))


def a_pool_that_is_terminated() -> Any:
    pool = Pool(1)
    pool.terminate()
    pool.join()
    return raised(lambda: pool.apply(abs, (1,)))


def a_pool_of_no_size() -> Any:
    return raised(lambda: Pool(0)), raised(lambda: Pool(-1))


def a_result_that_is_not_there() -> Any:
    with Pool(1) as pool:
        result = pool.apply_async(time.sleep, (1,))
        return (
            result.ready(),
            raised(lambda: result.get(timeout=0.1)),
            raised(lambda: result.successful()),
            result.get(),
        )


def processes_end_after_some_calls() -> Any:
    pool = Pool(1, maxtasksperchild=1)
    pids = {pool.apply(os.getpid) for _ in range(2)}
    pool.terminate()
    return len(pids)


def joblib_calls() -> Any:
    import joblib
    from ray.util.joblib import register_ray

    register_ray()
    with joblib.parallel_backend("ray", n_jobs=2):
        return joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(10))


def joblib_errors() -> Any:
    import joblib
    from ray.util.joblib import register_ray

    register_ray()

    def fail(value: int) -> None:
        raise ValueError(value)

    with joblib.parallel_backend("ray", n_jobs=2):
        return "ValueError" in raised(lambda: joblib.Parallel()(joblib.delayed(fail)(i) for i in range(2)))
