"""The work of the whole jobs, as the rivals in Python do it: `jobs.rs` and the examples have the same in Rust."""

import collections
import os
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from side import check

# Each process is a worker: none of them has threads of its own.
pa.set_cpu_count(1)

WORKERS = 2
ROUNDS = 20


def scrambled(numbers):
    """Different numbers of different ones, far apart (the last step of MurmurHash3)."""
    numbers = np.asarray(numbers, dtype=np.uint64)
    with np.errstate(over="ignore"):
        numbers = (numbers ^ numbers >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
        numbers = (numbers ^ numbers >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return numbers ^ numbers >> np.uint64(33)


# ---- words ----


def text_files(scratch, size):
    directory = os.path.join(scratch, f"texts-{size}", "files")
    return sorted(os.path.join(directory, name) for name in os.listdir(directory))


def count_words(path):
    with open(path, "rb") as file:
        return collections.Counter(re.findall(rb"[a-z]+", file.read().lower()))


def check_words(counts, scratch, size):
    with open(os.path.join(scratch, f"texts-{size}", "counts"), "rb") as file:
        expected = {word: int(count) for word, count in map(bytes.split, file)}
    check(counts == expected, "the counts of all words")


# ---- numbers to be sorted ----


def random_numbers(first, end):
    return scrambled(np.arange(first, end, dtype=np.uint64))


def ranges(numbers):
    """As many ranges as there are workers, with about as many of the numbers each."""
    sample = np.sort(numbers[:: max(1, len(numbers) // 65536)])
    starts = [int(sample[part * len(sample) // WORKERS]) for part in range(1, WORKERS)] if len(sample) else []
    return list(zip([0, *starts], [*(start - 1 for start in starts), 2**64 - 1]))


def in_range(numbers, first, last):
    """The numbers of a range, which are looked at in pieces that the processor's caches hold."""
    pieces = (numbers[at : at + (1 << 16)] for at in range(0, len(numbers), 1 << 16))
    return [piece[(piece >= np.uint64(first)) & (piece <= np.uint64(last))] for piece in pieces]


def digest(arrays):
    """A sum of numbers that does not depend on their order."""
    sums = [(len(a), int(a.sum(dtype=np.uint64)), int(scrambled(a).sum(dtype=np.uint64))) for a in arrays]
    return [sum(column) % 2**64 for column in zip(*sums)]


def check_sorted(arrays, expected):
    last = np.uint64(0)
    for array in arrays:
        if len(array):
            check(last <= array[0] and bool(np.all(array[1:] >= array[:-1])), "sorted numbers")
            last = array[-1]
    check(digest(arrays) == expected, "the numbers that were to be sorted")


# ---- orders ----

ROWS = 1 << 20
ROW_BYTES = 24
CITIES = 1000
LEAST = 500.0
NAMES = pa.array([f"city {city:03}" for city in range(CITIES)])


def batches(size):
    """The first and the last row of each batch."""
    rows = size // ROW_BYTES
    return [(first, min(first + ROWS, rows)) for first in range(0, rows, ROWS)]


def cities_and_amounts(first, end):
    random = random_numbers(first, end)
    cities = (random % np.uint64(CITIES)).astype(np.int32)
    amounts = ((random >> np.uint64(32)) % np.uint64(1000)).astype(np.float64)
    return cities, amounts


def make_orders(first, end):
    cities, amounts = cities_and_amounts(first, end)
    numbers = pa.array(np.arange(first, end, dtype=np.int32))
    return pa.table({"city": NAMES.take(pa.array(cities)), "order": numbers, "amount": pa.array(amounts)})


def add_orders_up(orders):
    large = orders.filter(pc.field("amount") >= LEAST)
    groups = large.group_by("city", use_threads=False)
    return groups.aggregate([("amount", "count"), ("amount", "sum")])


def add_totals_up(tables):
    groups = pa.concat_tables(tables).group_by("city", use_threads=False)
    totals = groups.aggregate([("amount_count", "sum"), ("amount_sum", "sum")])
    columns = (totals["city"], totals["amount_count_sum"], totals["amount_sum_sum"])
    return {city: total for city, *total in zip(*(column.to_pylist() for column in columns))}


def check_totals(totals, size):
    counts, sums = np.zeros(CITIES, dtype=np.int64), np.zeros(CITIES)
    for first, end in batches(size):
        cities, amounts = cities_and_amounts(first, end)
        large = amounts >= LEAST
        counts += np.bincount(cities[large], minlength=CITIES)
        sums += np.bincount(cities[large], amounts[large], minlength=CITIES)
    named = zip(NAMES.to_pylist(), counts.tolist(), sums.tolist())
    check(totals == {city: [count, amount] for city, count, amount in named if count}, "the totals of all cities")


# ---- tasks that compute ----


def spin(task, microseconds):
    """Computes until the thread has used so much processor time."""
    end = time.thread_time_ns() + 1000 * microseconds
    while time.thread_time_ns() < end:
        pass
    return task


def task_times(tasks):
    """The times of the job of many tasks: 1 to 20 ms."""
    return (1000 + scrambled(np.arange(1, tasks + 1)) % np.uint64(19001)).tolist()


def check_tasks(results, tasks):
    check(sorted(results) == list(range(tasks)), "the tasks' results")


def tasks_at_once(microseconds):
    return max(100_000 // microseconds, 10)


# ---- the model of the parameter server ----

SAMPLES = 16
RATE = np.float32(0.5 / WORKERS)


def samples(trainer, weights):
    """What a trainer's samples say that each weight should be."""
    return np.resize(np.float32(trainer * 4) + np.arange(SAMPLES, dtype=np.float32) * np.float32(8), weights)


def step(weights, before, gradients):
    """Writes the weights after a step, in pieces that the processor's caches hold."""
    for at in range(0, len(weights), 1 << 14):
        piece = weights[at : at + (1 << 14)]
        piece[:] = before[at : at + (1 << 14)]
        for gradient in gradients:
            piece -= RATE * gradient[at : at + (1 << 14)]


def check_weights(shards, rounds):
    expected = np.zeros(SAMPLES, dtype=np.float32)
    for _ in range(rounds):
        before = expected.copy()
        step(expected, before, [before - samples(trainer, SAMPLES) for trainer in range(WORKERS)])
    for shard in shards:
        check(np.array_equal(shard, np.resize(expected, len(shard))), "the trained weights")
