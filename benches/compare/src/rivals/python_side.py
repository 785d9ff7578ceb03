"""Mobula's Python package as a side of the comparison. `face.py` has what it shares with Ray."""

import joblib
import mobula
import mobula.joblib
from mobula.multiprocessing import Pool

import face
import side
from side import check, repeated, timed


def successor(x):
    return x + 1


class Side:
    def __init__(self):
        mobula.init(num_cpus=face.WORKERS, object_store_memory=2 << 30, log_to_driver=False)
        self.face = face.Face(mobula, batch=1000)
        self.pool = None

    def pool_map(self, _budget, items):
        items = int(items)
        if self.pool is None:
            self.pool = Pool(face.WORKERS)
            self.pool.map(successor, range(1000))
        taken, results = timed(lambda: self.pool.map(successor, range(items)))
        check(results == list(range(1, items + 1)), "the results, in order")
        return taken

    def joblib(self, budget, calls):
        calls = int(calls)

        def run():
            with joblib.parallel_config(backend="mobula"):
                results = joblib.Parallel(n_jobs=face.WORKERS)(joblib.delayed(successor)(x) for x in range(calls))
            check(results == list(range(1, calls + 1)), "the results, in order")

        return repeated(budget, run)

    def rest(self, _budget=0):
        self.face.rest()
        if self.pool is not None:
            self.pool.terminate()
            self.pool = None
        return 0


WORK = {"face-pool-map": Side.pool_map, "face-joblib": Side.joblib, "rest": Side.rest}

if __name__ == "__main__":
    ours = Side()

    def do(name, budget, words):
        if name in face.WORK:
            return face.WORK[name](ours.face, budget, *words)
        return WORK[name](ours, budget, *words)

    side.serve(do)
    ours.rest()
    mobula.shutdown()
