"""Helpers of tests, with the names and the arguments that they have in Ray."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress

import mobula as ray


class RayTestTimeoutException(Exception):
    """A helper waited for too long."""


def _wait(condition, timeout, interval=0.05):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def wait_for_condition(condition_predictor, timeout=10, retry_interval_ms=100, raise_exceptions=False, **kwargs):
    error = None

    def holds():
        nonlocal error
        try:
            return condition_predictor(**kwargs)
        except Exception as raised:
            if raise_exceptions:
                raise
            error = raised
            return False

    if not _wait(holds, timeout, retry_interval_ms / 1000):
        raise RuntimeError(f"The condition wasn't met before the timeout expired. Last exception: {error!r}")


async def async_wait_for_condition(condition_predictor, timeout=10, retry_interval_ms=100, **kwargs):
    deadline = time.monotonic() + timeout
    while not condition_predictor(**kwargs):
        if time.monotonic() > deadline:
            raise RuntimeError("The condition wasn't met before the timeout expired.")
        await asyncio.sleep(retry_interval_ms / 1000)


def wait_until_succeeded_without_exception(
    func, exceptions, *args, timeout_ms=1000, retry_interval_ms=100, raise_last_ex=False
):
    last = None

    def succeeds():
        nonlocal last
        try:
            func(*args)
        except exceptions as error:
            last = error
            return False
        return True

    if _wait(succeeds, timeout_ms / 1000, retry_interval_ms / 1000):
        return True
    if raise_last_ex:
        raise last
    return False


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_pid_to_exit(pid, timeout=20):
    if not _wait(lambda: not _is_alive(pid), timeout):
        raise RayTestTimeoutException(f"process {pid} is still there after {timeout} s")


def _run(script, env, encode, stderr):
    done = subprocess.run(
        [sys.executable, "-"], input=script.encode(encode), stdout=subprocess.PIPE, stderr=stderr, env=env
    )
    out = done.stdout.decode(encode)
    err = done.stderr.decode(encode) if done.stderr is not None else ""
    if done.returncode:
        print(out, err)
        raise subprocess.CalledProcessError(done.returncode, done.args, out, err)
    return out, err


def run_string_as_driver(driver_script, env=None, encode="utf-8"):
    """Run a script, which comes from the standard input, and return what it prints."""
    return _run(driver_script, env, encode, subprocess.STDOUT)[0]


def run_string_as_driver_stdout_stderr(driver_script, env=None, encode="utf-8"):
    return _run(driver_script, env, encode, subprocess.PIPE)


def run_string_as_driver_nonblocking(driver_script, env=None):
    """Start a script, and return its process."""
    file = tempfile.NamedTemporaryFile("w", suffix=".py", prefix="driver-", delete=False)
    with file:
        file.write(f"import os; os.unlink({file.name!r})\n{driver_script}")
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, file.name], stdin=pipe, stdout=pipe, stderr=pipe, env=env)


def kill_actor_and_wait_for_failure(actor, timeout=10, retry_interval_ms=100):
    ray.kill(actor)
    end = actor.__ray_ready__.remote()
    ready, _ = ray.wait([end], timeout=timeout)
    if not ready:
        raise RuntimeError("It took too much time to kill an actor")
    with suppress(ray.exceptions.RayActorError):
        ray.get(end)


@ray.remote(num_cpus=0)
class SignalActor:
    """A signal that calls wait for, and another call sends."""

    def __init__(self):
        self.sent = asyncio.Event()
        self.waiting = 0

    async def send(self, clear=False):
        self.sent.set()
        if clear:
            self.sent.clear()

    async def wait(self, should_wait=True):
        if should_wait:
            self.waiting += 1
            try:
                await self.sent.wait()
            finally:
                self.waiting -= 1

    async def cur_num_waiters(self):
        return self.waiting


@ray.remote(num_cpus=0)
class Semaphore:
    """A semaphore that calls acquire and release."""

    def __init__(self, value=1):
        self.semaphore = asyncio.Semaphore(value)

    async def acquire(self):
        await self.semaphore.acquire()

    async def release(self):
        self.semaphore.release()

    async def locked(self):
        return self.semaphore.locked()


def client_test_enabled():
    return False


def object_memory_usage():
    raise NotImplementedError("the bytes that objects use are not counted for Python")


def dicts_equal(dict1, dict2, abs_tol=1e-4):
    return dict1.keys() == dict2.keys() and all(abs(dict1[key] - dict2[key]) < abs_tol for key in dict1)


def same_elements(elems_a, elems_b):
    left = list(elems_b)
    for element in elems_a:
        if element not in left:
            return False
        left.remove(element)
    return not left


@ray.remote
def _put(obj):
    return obj


def put_object(obj, use_ray_put):
    return ray.put(obj) if use_ray_put else _put.remote(obj)


def put_unpinned_object(obj):
    return ray.put(obj)


def find_free_port():
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


@contextmanager
def chdir(d):
    before = os.getcwd()
    os.chdir(d)
    try:
        yield
    finally:
        os.chdir(before)


def skip_flaky_core_test_premerge(reason):
    return lambda test: test


def __getattr__(name):
    if name.startswith(("__", "pytest", "setUp", "tearDown", "setup_", "teardown_")):
        raise AttributeError(name)
    if name == "BatchQueue":
        from ray._private._batch_queue import BatchQueue

        return BatchQueue

    # The helpers that look into a cluster. A test that imports one and calls it fails; the other tests of its file run.
    def absent(*_, **__):
        raise NotImplementedError(f"the helper {name} looks into a cluster of Ray, and mobula has none")

    absent.__name__ = name
    return absent
