"""Python's own `multiprocessing.Pool` as a side of the comparison.

Its processes are forks of this one. So data that is there when a pool begins is in the memory of all of them, and goes
through no pipe. Large results go back through memory that they share. `work.py` has the work itself.
"""

import collections
import mmap
import multiprocessing
import statistics
import sys
import time

import joblib
import numpy as np
import pyarrow as pa

import face
import side
import work
from side import check, repeated, timed

# The data of the job at hand, which a pool's processes inherit.
data = None


def shared(elements, dtype):
    """An array in memory that processes share when they are forked."""
    dtype = np.dtype(dtype)
    return np.frombuffer(mmap.mmap(-1, max(1, elements * dtype.itemsize)), dtype, elements)


def count_in_range(first_and_last):
    return sum(len(piece) for piece in work.in_range(data[0], *first_and_last))


def sort_range(first, last, start, end):
    numbers, found = data
    at = start
    for piece in work.in_range(numbers, first, last):
        found[at : at + len(piece)] = piece
        at += len(piece)
    check(at == end, "as many numbers as were counted")
    found[start:end].sort()


def add_orders_up(batch):
    return work.add_orders_up(data[batch])


def spin(task_and_time):
    return work.spin(*task_and_time)


def write_gradient(trainer):
    weights, gradients, samples = data
    np.subtract(weights, samples[trainer], out=gradients[trainer])


def same(value):
    return value


def successor(x):
    return x + 1


calls = 0


def stage(value):
    global calls
    calls += 1
    return value + 1


def get_calls():
    return calls


# Places in the queue.
PLACES = 1000


def produce(queue, items, go):
    go.wait()
    for item in range(items):
        queue.put(item)


class Side:
    """Keeps one pool: the last one, whose processes have inherited the data of the last job."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.pools, self.of = [], None

    def end(self):
        global data
        for pool in self.pools:
            pool.terminate()
            pool.join()
        self.pools, self.of, data = [], None, None

    def pools_with(self, of, make=lambda: None, count=1, processes=work.WORKERS):
        """The pools for a job, with its data; they are made for its first round."""
        global data
        if self.of != of:
            self.end()
            data = make()
            self.pools, self.of = [multiprocessing.Pool(processes) for _ in range(count)], of
            for pool in self.pools:
                pool.map(abs, range(processes))
        return self.pools

    def count_words(self, _budget, size):
        (pool,) = self.pools_with("plain")

        def count():
            counts = collections.Counter()
            for more in pool.imap_unordered(work.count_words, work.text_files(self.scratch, size)):
                counts.update(more)
            return counts

        taken, counts = timed(count)
        work.check_words(counts, self.scratch, size)
        return taken

    def sort(self, _budget, size):
        elements = int(size) // 8

        def make():
            numbers = shared(elements, np.uint64)
            for first in range(0, elements, 1 << 20):
                end = min(first + (1 << 20), elements)
                numbers[first:end] = work.random_numbers(first, end)
            return numbers, shared(elements, np.uint64)

        (pool,) = self.pools_with(("sort", elements), make)
        numbers, found = data

        def sort():
            ranges = work.ranges(numbers)
            ends = np.cumsum([0, *pool.map(count_in_range, ranges)]).tolist()
            pool.starmap(sort_range, [(*of, *place) for of, place in zip(ranges, zip(ends, ends[1:]))])

        taken, _ = timed(sort)
        pieces = [numbers[at : at + (1 << 22)] for at in range(0, elements, 1 << 22)]
        work.check_sorted([found], work.digest(pieces))
        return taken

    def group_by(self, _budget, size):
        size = int(size)
        (pool,) = self.pools_with(("groups", size), lambda: [work.make_orders(*ends) for ends in work.batches(size)])
        taken, totals = timed(lambda: work.add_totals_up(list(pool.imap_unordered(add_orders_up, range(len(data))))))
        work.check_totals(totals, size)
        return taken

    def tasks(self, _budget, tasks):
        (pool,) = self.pools_with("plain")
        times = work.task_times(int(tasks))
        taken, results = timed(lambda: pool.map(spin, list(enumerate(times)), chunksize=8))
        work.check_tasks(results, len(times))
        return taken

    def train(self, _budget, size):
        count = int(size) // 4

        def make():
            gradients = [shared(count, np.float32) for _ in range(work.WORKERS)]
            samples = [work.samples(trainer, count) for trainer in range(work.WORKERS)]
            return shared(count, np.float32), gradients, samples

        (pool,) = self.pools_with(("server", count), make)
        weights, gradients, _ = data
        weights.fill(0)

        def train():
            for _ in range(work.ROUNDS):
                pool.map(write_gradient, range(work.WORKERS), chunksize=1)
                work.step(weights, weights, gradients)

        taken, _ = timed(train)
        work.check_weights([weights], work.ROUNDS)
        return taken

    def chain(self, _budget, passes):
        passes = int(passes)
        pools = self.pools_with("chain", count=3, processes=1)
        before = [pool.apply(get_calls) for pool in pools]
        start = time.perf_counter()
        for number in range(passes):
            value = number
            for pool in pools:
                value = pool.apply(stage, (value,))
            check(value == number + 3, "what three processes make of a number")
        taken = time.perf_counter() - start
        after = [pool.apply(get_calls) for pool in pools]
        check(all(b - a == passes for a, b in zip(before, after)), "the calls of each process")
        return taken

    def spin(self, budget, microseconds):
        (pool,) = self.pools_with("plain")
        microseconds = int(microseconds)
        tasks = work.tasks_at_once(microseconds)

        def spin_all():
            work.check_tasks(pool.map(spin, [(task, microseconds) for task in range(tasks)]), tasks)

        return tasks / repeated(budget, spin_all)

    def queue(self, budget, items):
        items = int(items)

        def transfer():
            queue, go = multiprocessing.Queue(PLACES), multiprocessing.Event()
            producer = multiprocessing.Process(target=produce, args=(queue, items, go), daemon=True)
            producer.start()
            start = time.perf_counter()
            go.set()
            check(all(queue.get() == item for item in range(items)), "the items of a queue, in order")
            taken = time.perf_counter() - start
            producer.join()
            return taken

        figures, begun = [], time.perf_counter()
        while not figures or time.perf_counter() - begun < budget:
            figures.append(items / transfer())
        return statistics.median(figures)

    def task_call(self, budget):
        (pool,) = self.pools_with("plain")
        return repeated(budget, lambda: check(pool.apply(same, (7,)) == 7, "a result"))

    def task_many(self, budget, count):
        (pool,) = self.pools_with("plain")
        count = int(count)

        def calls():
            check(pool.map(same, range(count), chunksize=1) == list(range(count)), "the results, in order")

        return count / repeated(budget, calls)

    def small_array(self, budget):
        (pool,), array = self.pools_with("plain"), np.arange(10.0)
        return repeated(budget, lambda: check(pool.apply(same, (array,))[9] == 9, "an array"))

    def copy_array(self, budget, size):
        array = np.zeros(int(size) // 8)
        into = array.copy()
        return repeated(budget, lambda: np.copyto(into, array))

    def pool_map(self, _budget, items):
        (pool,), items = self.pools_with("plain"), int(items)
        taken, results = timed(lambda: pool.map(successor, range(items)))
        check(results == list(range(1, items + 1)), "the results, in order")
        return taken

    def joblib(self, budget, calls):
        calls = int(calls)

        def run():
            results = joblib.Parallel(n_jobs=face.WORKERS)(joblib.delayed(successor)(x) for x in range(calls))
            check(results == list(range(1, calls + 1)), "the results, in order")

        return repeated(budget, run)

    def rest(self, _budget):
        self.end()
        return 0


WORK = {
    "job-words": Side.count_words,
    "job-sort": Side.sort,
    "job-groups": Side.group_by,
    "job-tasks": Side.tasks,
    "job-server": Side.train,
    "job-chain": Side.chain,
    "spin": Side.spin,
    "queue": Side.queue,
    "face-task-call": Side.task_call,
    "face-task-many": Side.task_many,
    "face-small-array": Side.small_array,
    "face-copy-array": Side.copy_array,
    "face-pool-map": Side.pool_map,
    "face-joblib": Side.joblib,
    "rest": Side.rest,
}

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    ours = Side(sys.argv[1])
    side.serve(lambda name, budget, words: WORK[name](ours, budget, *words))
    ours.end()
