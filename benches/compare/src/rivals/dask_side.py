"""Dask as a side of the comparison: a local cluster of two processes. `work.py` has the work itself."""

import os
import sys

import dask
from distributed import Client, LocalCluster

import side
import work
from side import repeated


class Side:
    def __init__(self, scratch):
        self.directory = os.path.join(scratch, "dask")
        self.client = None

    def cluster(self):
        if self.client is None:
            # The processes are stopped for a while, which is no reason to replace them.
            dask.config.set({"distributed.scheduler.worker-ttl": None})
            cluster = LocalCluster(
                n_workers=work.WORKERS,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                local_directory=self.directory,
            )
            self.client = Client(cluster)
        return self.client

    def spin(self, budget, microseconds):
        client, microseconds = self.cluster(), int(microseconds)
        tasks = min(work.tasks_at_once(microseconds), 1000)

        def spin_all():
            futures = client.map(work.spin, range(tasks), [microseconds] * tasks, pure=False)
            work.check_tasks(client.gather(futures), tasks)

        return tasks / repeated(budget, spin_all)

    def end(self):
        if self.client is not None:
            self.client.close()
            self.client.cluster.close()


if __name__ == "__main__":
    ours = Side(sys.argv[1])

    def do(name, budget, words):
        return 0 if name == "rest" else ours.spin(budget, *words)

    side.serve(do)
    ours.end()
