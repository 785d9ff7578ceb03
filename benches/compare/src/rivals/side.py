"""A side of the comparison in Python: a process that takes one command a line and answers each with one line.

Answers are "ok FIGURE", "error TEXT" (the rival failed), or "wrong TEXT" (a result is not what it has to be). What else
is printed goes to standard error. The last word of a command is how many milliseconds it may take.
"""

import os
import statistics
import sys
import time

# Answers go to what was standard output; everything else that this process prints, and its children, does not.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Wrong(Exception):
    """A result that is not what it has to be."""


def check(condition, text):
    if not condition:
        raise Wrong(text)


def repeated(budget, work):
    """The median time of one go, of as many as fit, the first of which only warms up."""
    work()
    figures, begun = [], time.perf_counter()
    while not figures or time.perf_counter() - begun < budget:
        figures.append(timed(work)[0])
    return statistics.median(figures)


def timed(work):
    """The time of one go, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def serve(work):
    """Answers commands until there are no more. `work` gets a command's name, its budget in seconds, and its words."""
    for line in sys.stdin:
        name, *words = line.split()
        try:
            budget = float(words.pop()) / 1000 if words else 0
            answer = f"ok {work(name, budget, words)!r}"
        except Wrong as wrong:
            answer = f"wrong {wrong}"
        except Exception as error:  # noqa: BLE001: whatever it is, the harness goes on without this rival
            answer = f"error {type(error).__name__}: {error}".replace("\n", " ")
        print(answer, file=answers, flush=True)
