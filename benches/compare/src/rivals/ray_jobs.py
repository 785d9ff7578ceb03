"""The whole jobs, as Ray does them: tasks and actors over its store. `work.py` has the work itself."""

import collections
import pathlib
import time

import numpy as np
import ray
from ray.dag import InputNode

import work
from side import check, repeated, timed

BLOCKS = 16
SEMAPHORES = pathlib.Path("/dev/shm")

count_words = ray.remote(work.count_words)
spin = ray.remote(work.spin)
add_orders_up = ray.remote(work.add_orders_up)
make_orders = ray.remote(work.make_orders)


@ray.remote
def random_numbers(first, end):
    return work.random_numbers(first, end)


@ray.remote
def sort_range(first, last, *blocks):
    chosen = np.concatenate([piece for block in blocks for piece in work.in_range(block, first, last)])
    chosen.sort()
    return chosen


@ray.remote(num_cpus=0)
class ParameterServer:
    def __init__(self, count):
        self.weights = np.zeros(count, dtype=np.float32)

    def get_weights(self):
        return self.weights

    def apply(self, *gradients):
        weights = np.empty_like(self.weights)
        work.step(weights, self.weights, gradients)
        self.weights = weights
        return weights


@ray.remote(num_cpus=0)
class Trainer:
    def __init__(self, number, count):
        self.samples = work.samples(number, count)

    def gradient(self, weights):
        return weights - self.samples[: len(weights)]


@ray.remote(num_cpus=0)
class Stage:
    def __init__(self):
        self.calls = 0

    def step(self, value):
        self.calls += 1
        return value + 1

    def get_calls(self):
        return self.calls


class Jobs:
    def __init__(self, scratch):
        self.scratch = scratch
        self.rest()

    def rest(self):
        """Drops the data that jobs keep between their rounds."""
        self.numbers, self.orders, self.trainers, self.stages = None, None, None, None

    def count_words(self, _budget, size):
        def count():
            counts = collections.Counter()
            refs = [count_words.remote(path) for path in work.text_files(self.scratch, size)]
            while refs:
                (ready,), refs = ray.wait(refs)
                counts.update(ray.get(ready))
            return counts

        taken, counts = timed(count)
        work.check_words(counts, self.scratch, size)
        return taken

    def sort(self, _budget, size):
        elements = int(size) // 8
        if self.numbers is None or self.numbers[0] != elements:
            self.numbers = None
            ends = [block * elements // BLOCKS for block in range(BLOCKS + 1)]
            blocks = [random_numbers.remote(first, end) for first, end in zip(ends, ends[1:])]
            self.numbers = elements, blocks, work.digest(ray.get(blocks))
        _, blocks, digest = self.numbers

        def sort():
            sample = np.concatenate([block[:: max(1, elements // 65536)] for block in ray.get(blocks)])
            refs = [sort_range.remote(first, last, *blocks) for first, last in work.ranges(sample)]
            return ray.get(refs)

        taken, found = timed(sort)
        work.check_sorted(found, digest)
        return taken

    def group_by(self, _budget, size):
        size = int(size)
        if self.orders is None or self.orders[0] != size:
            self.orders = None
            orders = [make_orders.remote(first, end) for first, end in work.batches(size)]
            ray.wait(orders, num_returns=len(orders))
            self.orders = size, orders
        _, orders = self.orders
        taken, totals = timed(lambda: work.add_totals_up(ray.get([add_orders_up.remote(ref) for ref in orders])))
        work.check_totals(totals, size)
        return taken

    def tasks(self, _budget, tasks):
        times = work.task_times(int(tasks))
        taken, results = timed(lambda: ray.get([spin.remote(task, time) for task, time in enumerate(times)]))
        work.check_tasks(results, len(times))
        return taken

    def train(self, _budget, size):
        weights = int(size) // 4
        shards = [weights // 2 // work.SAMPLES * work.SAMPLES]
        shards.append(weights - shards[0])
        if self.trainers is None:
            self.trainers = [Trainer.remote(number, max(shards)) for number in range(work.WORKERS)]
        servers = [ParameterServer.remote(shard) for shard in shards]
        ray.get([server.get_weights.remote() for server in servers])

        def train(rounds):
            shards = [server.get_weights.remote() for server in servers]
            for _ in range(rounds):
                for number, server in enumerate(servers):
                    gradients = [trainer.gradient.remote(shards[number]) for trainer in self.trainers]
                    shards[number] = server.apply.remote(*gradients)
            return ray.get(shards)

        # A step before makes the memory that all further steps use.
        train(1)
        taken, found = timed(lambda: train(work.ROUNDS))
        work.check_weights(found, 1 + work.ROUNDS)
        return taken

    def three_stages(self):
        if self.stages is None:
            self.stages = [Stage.remote() for _ in range(3)]
            ray.get([stage.get_calls.remote() for stage in self.stages])
        return self.stages

    def chain(self, _budget, passes):
        stages, passes = self.three_stages(), int(passes)
        before = ray.get([stage.get_calls.remote() for stage in stages])
        first, second, third = stages
        start = time.perf_counter()
        for number in range(passes):
            value = ray.get(third.step.remote(second.step.remote(first.step.remote(number))))
            check(value == number + 3, "what three actors make of a number")
        taken = time.perf_counter() - start
        after = ray.get([stage.get_calls.remote() for stage in stages])
        check(all(b - a == passes for a, b in zip(before, after)), "the calls of each actor")
        return taken

    def graph(self, _budget, passes):
        """The same by Ray's compiled graph, over actors of its own."""
        stages, passes = [Stage.remote() for _ in range(3)], int(passes)
        semaphores = set(SEMAPHORES.glob("sem.*"))
        with InputNode() as value:
            for stage in stages:
                value = stage.step.bind(value)
        graph = value.experimental_compile()
        check(ray.get(graph.execute(0)) == 3, "what three actors make of a number")
        start = time.perf_counter()
        for number in range(passes):
            check(ray.get(graph.execute(number)) == number + 3, "what three actors make of a number")
        taken = time.perf_counter() - start
        graph.teardown()
        # Ray 2.60 leaves the names of its channels' semaphores there for ever.
        for semaphore in set(SEMAPHORES.glob("sem.hdr*")) | set(SEMAPHORES.glob("sem.obj*")):
            if semaphore not in semaphores:
                semaphore.unlink(missing_ok=True)
        after = ray.get([stage.get_calls.remote() for stage in stages])
        check(after == [passes + 1] * 3, "the calls of each actor")
        return taken

    def spin(self, budget, microseconds):
        microseconds = int(microseconds)
        tasks = min(work.tasks_at_once(microseconds), 1000)

        def spin_all():
            work.check_tasks(ray.get([spin.remote(task, microseconds) for task in range(tasks)]), tasks)

        return tasks / repeated(budget, spin_all)


WORK = {
    "job-words": Jobs.count_words,
    "job-sort": Jobs.sort,
    "job-groups": Jobs.group_by,
    "job-tasks": Jobs.tasks,
    "job-server": Jobs.train,
    "job-chain": Jobs.chain,
    "job-graph": Jobs.graph,
    "spin": Jobs.spin,
}
