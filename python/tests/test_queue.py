"""``mobula.util.queue.Queue``: if these fail, items are lost or doubled, or a program waits for ever."""

from __future__ import annotations

import asyncio
import os
import pickle
import queue as standard
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

import mobula
from mobula.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError
from mobula.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("session")

LONG = 60


def test_without_waiting() -> None:
    queue = Queue(maxsize=3)
    assert queue.empty() and not queue.full() and queue.qsize() == queue.size() == len(queue) == 0
    for i in range(3):
        queue.put(i)
    assert queue.full()
    with pytest.raises(Full):
        queue.put_nowait(3)
    with pytest.raises(standard.Full):
        queue.put(3, block=False)
    with pytest.raises(Full):
        queue.put(3, timeout=0.01)
    assert [queue.get() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(standard.Empty):
        queue.get(timeout=0)
    for timeout in (-1, -0.5):
        with pytest.raises(ValueError, match="non-negative"):
            queue.get(timeout=timeout)
        with pytest.raises(ValueError, match="non-negative"):
            queue.put(1, timeout=timeout)


def test_batches_are_whole() -> None:
    queue = Queue(maxsize=5)
    queue.put_nowait_batch(range(4))
    with pytest.raises(Full, match="Cannot add 2 items to queue of size 4 and maxsize 5"):
        queue.put_nowait_batch([4, 5])
    with pytest.raises(Empty, match="Cannot get 5 items from queue of size 4"):
        queue.get_nowait_batch(5)
    assert queue.get_nowait_batch(0) == []
    assert queue.get_nowait_batch(3) == [0, 1, 2]
    assert queue.get() == 3
    with pytest.raises(TypeError):
        queue.put_nowait_batch(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        queue.get_nowait_batch("1")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        queue.get_nowait_batch(-1)


@mobula.remote
def produce(queue: Queue, items: list[int]) -> None:
    for item in items:
        queue.put(item)


@mobula.remote
def consume(queue: Queue, count: int) -> list[int]:
    return [queue.get(timeout=LONG) for _ in range(count)]


def test_callers_that_wait_take_no_place_of_a_producer() -> None:
    """More consumers wait than there are CPUs; the producers run nevertheless."""
    queue = Queue(maxsize=5)
    consumers = [consume.remote(queue, 50) for _ in range(4)]
    producers = [produce.remote(queue, list(range(start, start + 50))) for start in (0, 100, 200, 300)]
    mobula.get(producers, timeout=LONG)
    got = [item for items in mobula.get(consumers, timeout=LONG) for item in items]
    assert sorted(got) == sorted(range(start, start + 50)[i] for start in (0, 100, 200, 300) for i in range(50))
    assert queue.empty()


def test_a_caller_that_times_out_gets_nothing() -> None:
    queue = Queue()
    for _ in range(3):
        with pytest.raises(Empty):
            queue.get(timeout=0.01)
    queue.put("only")
    assert queue.qsize() == 1
    assert queue.get(timeout=LONG) == "only"


@mobula.remote(max_retries=0)
def start_and_get(started: Queue, queue: Queue) -> Any:
    started.put(os.getpid())
    return queue.get()


def test_a_caller_that_dies_while_it_waits_gets_nothing() -> None:
    queue, started = Queue(), Queue()
    waits = start_and_get.remote(started, queue)
    os.kill(started.get(timeout=LONG), signal.SIGKILL)
    with pytest.raises(WorkerCrashedError):
        mobula.get(waits, timeout=LONG)
    queue.put("first")
    assert queue.get(timeout=LONG) == "first"


def test_an_item_that_an_interrupted_caller_was_given_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    queue.put_nowait_batch([1, 2])

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mobula, "get", interrupted)
        queue.get()
    assert [queue.get(timeout=LONG), queue.get(timeout=LONG)] == [1, 2]


def test_ctrl_c_ends_a_wait() -> None:
    script = textwrap.dedent(
        """
        import os, signal, threading, mobula
        from mobula.util.queue import Queue
        queue = Queue()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            queue.get()
        except KeyboardInterrupt:
            queue.put(1)
            print(queue.get())
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


def test_threads_share_a_queue() -> None:
    queue, got = Queue(maxsize=2), []

    def take() -> None:
        while (item := queue.get(timeout=LONG)) is not None:
            got.append(item)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for item in range(30):
        queue.put(item, timeout=LONG)
    for _ in threads:
        queue.put(None, timeout=LONG)
    for thread in threads:
        thread.join(LONG)
    assert sorted(got) == list(range(30))


def test_event_loops_go_on_while_callers_wait() -> None:
    queue = Queue(maxsize=1)

    async def run() -> list[Any]:
        with pytest.raises(Empty):
            await queue.get_async(timeout=0.01)
        takes = [asyncio.ensure_future(queue.get_async(timeout=LONG)) for _ in range(3)]
        for item in range(3):
            await queue.put_async(item, timeout=LONG)
        got = sorted(await asyncio.gather(*takes))
        await queue.put_async("last")
        with pytest.raises(Full):
            await queue.put_async("none", timeout=0.01)
        with pytest.raises(Full):
            await queue.put_async("none", block=False)
        return [*got, await queue.get_async()]

    assert asyncio.run(run()) == [0, 1, 2, "last"]


def test_shutdown_ends_the_waits() -> None:
    started = Queue()
    for force in (False, True):
        queue = Queue()
        waits = start_and_get.remote(started, queue)
        started.get(timeout=LONG)
        queue.shutdown(force=force)
        with pytest.raises(RayTaskError) as raised:
            mobula.get(waits, timeout=LONG)
        assert isinstance(raised.value.cause, ActorDiedError)
        assert queue.actor is None


def test_a_queue_travels_within_values_only() -> None:
    queue = Queue()

    @mobula.remote
    def put(queues: list[Queue]) -> None:
        queues[0].put(1)

    mobula.get(put.remote([queue]), timeout=LONG)
    assert queue.get() == 1
    with pytest.raises(TypeError):
        pickle.dumps(queue)


def test_the_actor_has_options() -> None:
    queue = Queue(actor_options={"name": "the queue", "num_cpus": 1})
    queue.put(1)
    assert mobula.get(mobula.get_actor("the queue").size.remote()) == 1
