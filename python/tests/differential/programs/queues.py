"""``util.queue.Queue``."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.util.queue import Empty, Full, Queue

from programs import raised


def put_and_get() -> Any:
    queue = Queue()
    for i in range(3):
        queue.put(i)
    return [queue.get() for _ in range(3)]


def sizes() -> Any:
    queue = Queue(maxsize=2)
    found = [queue.qsize(), len(queue), queue.empty(), queue.full()]
    queue.put(1)
    queue.put(2)
    return [*found, queue.qsize(), queue.size(), queue.empty(), queue.full(), queue.maxsize]


def get_of_an_empty_queue() -> Any:
    queue = Queue()
    return raised(queue.get_nowait), raised(lambda: queue.get(timeout=0.1)), raised(lambda: queue.get(block=False))


def put_into_a_full_queue() -> Any:
    queue = Queue(maxsize=1)
    queue.put(1)
    return (
        raised(lambda: queue.put_nowait(2)),
        raised(lambda: queue.put(2, timeout=0.1)),
        raised(lambda: queue.put(2, block=False)),
    )


def a_timeout_that_cannot_be() -> Any:
    queue = Queue(maxsize=1)
    return raised(lambda: queue.get(timeout=-1)), raised(lambda: queue.put(1, timeout=-1))


def the_classes_of_the_errors() -> Any:
    return [cls.__name__ for cls in Empty.__mro__[:-2]], [cls.__name__ for cls in Full.__mro__[:-2]]


def batches() -> Any:
    queue = Queue(maxsize=5)
    queue.put_nowait_batch([1, 2, 3])
    found = queue.get_nowait_batch(2)
    return (
        found,
        raised(lambda: queue.get_nowait_batch(2)),
        raised(lambda: queue.put_nowait_batch(list(range(6)))),
        queue.qsize(),
    )


def batches_that_cannot_be() -> Any:
    queue = Queue()
    return (
        raised(lambda: queue.put_nowait_batch(1)),
        raised(lambda: queue.get_nowait_batch("1")),
        raised(lambda: queue.get_nowait_batch(-1)),
    )


def a_queue_as_an_argument() -> Any:
    @ray.remote
    def fill(queue: Any) -> None:
        for i in range(3):
            queue.put(i)

    queue = Queue()
    ray.get(fill.remote(queue))
    return [queue.get() for _ in range(3)]


def a_reader_waits_for_a_writer() -> Any:
    @ray.remote
    def read(queue: Any) -> list[int]:
        return [queue.get(timeout=60) for _ in range(3)]

    queue = Queue()
    found = read.remote(queue)
    for i in range(3):
        queue.put(i)
    return ray.get(found)


def a_writer_waits_for_a_reader() -> Any:
    @ray.remote
    def write(queue: Any) -> str:
        for i in range(4):
            queue.put(i, timeout=60)
        return "written"

    queue = Queue(maxsize=1)
    done = write.remote(queue)
    return [queue.get(timeout=60) for _ in range(4)], ray.get(done)


def asynchronous_calls() -> Any:
    async def main() -> Any:
        queue = Queue()
        await queue.put_async(1)
        await queue.put_async(2)
        found = [await queue.get_async(), await queue.get_async()]
        try:
            await queue.get_async(timeout=0.1)
        except Empty:
            found.append("empty")
        return found

    return asyncio.run(main())


def values_of_all_kinds() -> Any:
    queue = Queue()
    for value in (None, [1, 2], {"a": 1}, "text"):
        queue.put(value)
    return [queue.get() for _ in range(4)]


def references_in_a_queue() -> Any:
    queue = Queue()
    queue.put([ray.put(5)])
    return ray.get(queue.get()[0])


def options_of_the_actor() -> Any:
    queue = Queue(actor_options={"name": "queue", "num_cpus": 0})
    queue.put(1)
    return ray.get_actor("queue") == queue.actor, queue.get()


def a_queue_that_is_over() -> Any:
    queue = Queue()
    queue.put(1)
    queue.shutdown()
    return queue.actor is None


def a_queue_that_is_over_by_force() -> Any:
    queue = Queue()
    actor = queue.actor
    queue.put(1)
    queue.shutdown(force=True)
    return raised(lambda: ray.get(actor.empty.remote()))
