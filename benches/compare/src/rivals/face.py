"""What Mobula's Python package and Ray do with the same program. `side.py` has how a side is asked."""

import subprocess
import sys

import numpy as np

from side import check, repeated

WORKERS = 2

# A new program: it says how long it takes from here to the result of a function.
FIRST_TASK = """
import time
began = time.perf_counter()
import {name} as ray
ray.init(num_cpus=2, log_to_driver=False)
@ray.remote
def same(value):
    return value
assert ray.get(same.remote(1)) == 1
print(time.perf_counter() - began)
"""


def batched(budget, count, work):
    """The median time of one of the goes, which are timed so many at a time."""

    def batch():
        for _ in range(count):
            work()

    return repeated(budget, batch) / count


class Face:
    """Measures `ray`, which is this package or the other. `batch` calls are timed together."""

    def __init__(self, ray, batch):
        self.ray, self.batch = ray, batch
        self.actor, self.array = None, None

        @ray.remote
        def same(value):
            return value

        @ray.remote
        class Actor:
            def same(self, value):
                return value

            def length(self, array):
                return len(array)

        self.same, self.Actor = same, Actor

    def rest(self):
        self.actor, self.array = None, None

    def one_actor(self):
        if self.actor is None:
            # Takes none of the two places that tasks have.
            self.actor = self.Actor.options(num_cpus=0).remote()
            check(self.ray.get(self.actor.same.remote(1)) == 1, "an actor's answer")
        return self.actor

    def stored_array(self, size):
        if self.array is None:
            self.array = self.ray.put(np.zeros(int(size) // 8))
        return self.array

    def put(self, budget):
        return batched(budget, self.batch, lambda: self.ray.put(1))

    def get(self, budget):
        ray, one = self.ray, self.ray.put(1)
        check(ray.get(one) == 1, "a value that was put")
        return batched(budget, self.batch, lambda: ray.get(one))

    def actor_call(self, budget):
        ray, actor = self.ray, self.one_actor()
        return batched(budget, self.batch, lambda: check(ray.get(actor.same.remote(7)) == 7, "an actor's answer"))

    def task_call(self, budget):
        ray, same = self.ray, self.same
        return batched(budget, self.batch, lambda: check(ray.get(same.remote(7)) == 7, "a task's result"))

    def many(self, budget, function, count):
        def calls():
            results = self.ray.get([function.remote(x) for x in range(count)])
            check(results == list(range(count)), "the results, in order")

        return count / repeated(budget, calls)

    def actor_many(self, budget, count):
        return self.many(budget, self.one_actor().same, int(count))

    def task_many(self, budget, count):
        return self.many(budget, self.same, int(count))

    def small_array(self, budget):
        ray, same, array = self.ray, self.same, np.arange(10.0)
        return batched(budget, self.batch, lambda: check(ray.get(same.remote(array))[9] == 9, "a task's array"))

    def put_array(self, budget, size):
        array = np.zeros(int(size) // 8)
        return repeated(budget, lambda: self.ray.put(array))

    def get_array(self, budget, size):
        ray, array = self.ray, self.stored_array(size)
        check(len(ray.get(array)) == int(size) // 8, "the length of an array")
        return batched(budget, self.batch, lambda: ray.get(array))

    def pass_array(self, budget, size):
        ray, actor, array, elements = self.ray, self.one_actor(), self.stored_array(size), int(size) // 8

        def call():
            check(ray.get(actor.length.remote(array)) == elements, "the length of an array")

        return batched(budget, self.batch, call)

    def init(self, _budget):
        program = FIRST_TASK.format(name=self.ray.__name__)
        output = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
        return float(output.splitlines()[-1])


WORK = {
    "face-put": Face.put,
    "face-get": Face.get,
    "face-actor-call": Face.actor_call,
    "face-task-call": Face.task_call,
    "face-actor-many": Face.actor_many,
    "face-task-many": Face.task_many,
    "face-small-array": Face.small_array,
    "face-put-array": Face.put_array,
    "face-get-array": Face.get_array,
    "face-pass-array": Face.pass_array,
    "face-init": Face.init,
}
