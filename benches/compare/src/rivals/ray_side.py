"""Ray's side of the comparison: one driver. `side.py` has how it is asked."""

import asyncio
import os
import statistics
import subprocess
import sys
import time

import side
from side import check, repeated

DIRECTORY = os.path.join(sys.argv[1], "ray")
WORKERS = 2
STORE_BYTES = 6 << 30

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")

import numpy as np  # noqa: E402
import ray  # noqa: E402
from ray.util.queue import Queue  # noqa: E402

import face  # noqa: E402
import ray_jobs  # noqa: E402


@ray.remote
def successor(x):
    return x + 1


@ray.remote
def small():
    return b"ok"


@ray.remote(num_returns="streaming")
def numbers(count):
    # Ray sends into what yields, which a range does not take.
    for number in range(count):
        yield number


@ray.remote
class Total:
    def __init__(self):
        self.value = 0

    def add(self, x):
        self.value += x
        return self.value

    def ends(self, array):
        return len(array), float(array[0]), float(array[-1])

    def make(self, elements):
        return np.full(elements, 3.0)


@ray.remote(num_cpus=0, max_concurrency=1000)
class Waiter:
    async def later(self, x):
        await asyncio.sleep(0.001)
        return x


@ray.remote(num_cpus=0)
class Adder:
    def successor(self, x):
        return x + 1


@ray.remote
def call_all(actors, calls):
    return sum(ray.get([actors[call % len(actors)].successor.remote(call) for call in range(calls)]))


@ray.remote
def produce(queue, items):
    for item in range(items):
        queue.put(item)


def start():
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        _temp_dir=DIRECTORY,
        logging_level="ERROR",
        log_to_driver=False,
    )


class Side:
    def __init__(self):
        self.actor = None
        self.total = 0
        self.kept = {}
        self.jobs = ray_jobs.Jobs(sys.argv[1])
        self.face = face.Face(ray, batch=10)

    def total_actor(self):
        if self.actor is None:
            # Takes none of the two places that tasks have.
            self.actor = Total.options(num_cpus=0).remote()
            self.total = ray.get(self.actor.add.remote(0))
        return self.actor

    def actor_call(self, budget):
        actor = self.total_actor()

        def call():
            self.total += 1
            check(ray.get(actor.add.remote(1)) == self.total, "an actor's total")

        return repeated(budget, call)

    def actor_many(self, budget, count=500):
        actor = self.total_actor()

        def calls():
            results = ray.get([actor.add.remote(1) for _ in range(count)])
            check(results == list(range(self.total + 1, self.total + count + 1)), "an actor's totals, in order")
            self.total += count

        return count / repeated(budget, calls)

    def async_calls(self, budget, count=1000):
        waiter = Waiter.remote()

        def calls():
            results = ray.get([waiter.later.remote(x) for x in range(count)])
            check(results == list(range(count)), "an actor's answers")

        return count / repeated(budget, calls)

    def many_to_many(self, budget, count, calls=500):
        actors = [Adder.remote() for _ in range(int(count))]

        def all_calls():
            sums = ray.get([call_all.remote(actors, calls) for _ in actors])
            check(sums == [calls * (calls + 1) // 2] * len(actors), "the sums of the callers")

        return len(actors) * calls / repeated(budget, all_calls)

    def queue(self, budget, items):
        items = int(items)
        queue = Queue(1000, {"num_cpus": 0})

        def transfer():
            producer = produce.remote(queue, items)
            check(all(queue.get() == item for item in range(items)), "the items of a queue, in order")
            ray.get(producer)

        return items / repeated(budget, transfer)

    def task_call(self, budget):
        def call():
            check(ray.get(successor.remote(41)) == 42, "a task's result")

        return repeated(budget, call)

    def task_many(self, budget, count=500):
        def calls():
            results = ray.get([successor.remote(x) for x in range(count)])
            check(results == list(range(1, count + 1)), "the tasks' results, in order")

        return count / repeated(budget, calls)

    def stream(self, budget, items):
        items = int(items)

        def read():
            count = 0
            for item in numbers.remote(items):
                check(ray.get(item) == count, "the items, in order")
                count += 1
            check(count == items, "all items")

        return items / repeated(budget, read)

    def wait_for_each(self, refs):
        seen, rest = 0, refs
        while rest:
            ready, rest = ray.wait(rest, num_returns=1)
            seen += len(ready)
        check(seen == len(refs), "as many are ready as were waited for")

    def wait_1k(self, budget):
        """Ray's own microbenchmark: single client wait 1k refs."""
        return 1 / repeated(budget, lambda: self.wait_for_each([small.remote() for _ in range(1000)]))

    def wait_1k_done(self, budget):
        if "done" not in self.kept:
            refs = [small.remote() for _ in range(1000)]
            check(ray.get(refs) == [b"ok"] * 1000, "the tasks' results")
            self.kept["done"] = refs
        return 1 / repeated(budget, lambda: self.wait_for_each(list(self.kept["done"])))

    def refs_10k(self, budget):
        """Ray's own microbenchmark: single client get object containing 10k refs, here of values that were put."""
        if "holder" not in self.kept:
            inner = [ray.put(b"ok") for _ in range(10000)]
            self.kept["holder"] = ray.put(inner)
            del inner
        holder = self.kept["holder"]
        check(ray.get(ray.get(holder)[9999]) == b"ok", "the value of the last reference")

        def get():
            check(len(ray.get(holder)) == 10000, "as many references as were put")

        return 1 / repeated(budget, get)

    def passed(self, budget, size, state):
        elements = int(size) // 8
        if self.kept.get("size") != elements:
            array = np.zeros(elements)
            array[0], array[-1] = 1.0, 2.0
            self.kept["array"], self.kept["size"] = ray.put(array), elements
        actor, array, figures = self.total_actor(), self.kept["array"], []

        def call():
            start = time.perf_counter()
            ends = ray.get(actor.ends.remote(array))
            taken = time.perf_counter() - start
            check(tuple(ends) == (elements, 1.0, 2.0), "the ends of an array")
            return taken

        call()
        begun = time.perf_counter()
        while not figures or time.perf_counter() - begun < budget:
            if state == "asleep":
                time.sleep(0.002)
            figures.append(call())
        return statistics.median(figures)

    def made(self, budget, size):
        elements = int(size) // 8
        actor = self.total_actor()

        def make():
            total = float(ray.get(actor.make.remote(elements)).sum())
            check(total == 3.0 * elements, "the sum of an array")

        return repeated(budget, make)

    def actors_10(self, _budget):
        start = time.perf_counter()
        actors = [Total.options(num_cpus=0).remote() for _ in range(10)]
        results = ray.get([actor.add.remote(1) for actor in actors])
        taken = time.perf_counter() - start
        check(results == [1] * 10, "ten actors' first calls")
        for actor in actors:
            ray.kill(actor)
        return taken

    def warm(self, _budget):
        check(ray.get([successor.remote(x) for x in range(100)]) == list(range(1, 101)), "the tasks' results")
        return 0

    def stop(self):
        """Ends the session, and says how long that takes."""
        self.actor, self.kept = None, {}
        self.jobs.rest()
        self.face.rest()
        start = time.perf_counter()
        ray.shutdown()
        return time.perf_counter() - start

    def init(self, _budget):
        if ray.is_initialized():
            self.stop()
        start_at = time.perf_counter()
        start()
        check(ray.get(successor.remote(1)) == 2, "a task's result")
        return time.perf_counter() - start_at

    def shutdown(self, _budget):
        taken = self.stop()
        start()
        return taken

    def join(self, _budget):
        """A second driver joins the session of this one. The driver is a process that has imported Ray already."""
        check(ray.get(successor.remote(1)) == 2, "a task's result")
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ray_join.py")
        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, program, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
            check(driver.stdout.readline() == "ready\n", "a second driver that is ready")
            taken, _ = driver.communicate("join\n")
        return float(taken)

    def rest(self, _budget=0):
        self.kept = {}
        self.jobs.rest()
        self.face.rest()
        return 0


WORK = {
    "actor-call": Side.actor_call,
    "actor-many": Side.actor_many,
    "task-call": Side.task_call,
    "task-many": Side.task_many,
    "async-calls": Side.async_calls,
    "many-to-many": Side.many_to_many,
    "queue": Side.queue,
    "stream": Side.stream,
    "wait-1k": Side.wait_1k,
    "wait-1k-done": Side.wait_1k_done,
    "refs-10k": Side.refs_10k,
    "pass": Side.passed,
    "make": Side.made,
    "init": Side.init,
    "shutdown": Side.shutdown,
    "join": Side.join,
    "actors-10": Side.actors_10,
    "warm": Side.warm,
    "rest": Side.rest,
}


def main():
    ours = Side()

    def work(name, budget, words):
        if not ray.is_initialized() and name not in ("init", "rest"):
            start()
        if name in ray_jobs.WORK:
            return ray_jobs.WORK[name](ours.jobs, budget, *words)
        if name in face.WORK:
            return face.WORK[name](ours.face, budget, *words)
        return WORK[name](ours, budget, *words)

    side.serve(work)
    if ray.is_initialized():
        ray.shutdown()


if __name__ == "__main__":
    main()
