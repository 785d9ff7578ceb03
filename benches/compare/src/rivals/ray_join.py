"""A second driver of a session of Ray: says that it is ready, joins when it is told to, and prints the time of that."""

import sys
import time

import ray


@ray.remote
def successor(x):
    return x + 1


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
    if ray.get(successor.remote(1)) != 2:
        sys.exit("a task's result is wrong")
    taken = time.perf_counter() - begun
    ray.shutdown()
    print(taken)
