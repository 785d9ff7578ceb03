"""Python calls Rust: functions and a class of ``examples/cross_language.rs``, which also calls Python.

    cargo build -p mobula-examples --features arrow --example cross_language
    python examples/python/cross_language.py --check

Arrays of numpy and Arrow data are read where they lie, in both directions.
"""

from __future__ import annotations

import argparse
import os

import numpy as np

import mobula as ray

PROGRAM = os.path.join(os.path.dirname(__file__), "../../target/debug/examples/cross_language")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="check the results")
    parser.add_argument("--program", default=PROGRAM, help="the Rust program")
    options = parser.parse_args()

    with ray.init(num_cpus=2):
        rust = ray.rust.program(options.program)

        text, counts = ray.get(rust("greet").remote(["manta", "eagle ray"], 2))
        print(f"Rust says {text!r} and {counts}")

        array = np.arange(1_000_000, dtype=np.float64)
        doubled = rust("scale").remote(array, 2.0)
        print(f"doubled: the sum is {ray.get(doubled).sum()}")

        total = rust.actor("Total").remote(0.5)
        sums = ray.get([total.add.remote(doubled), total.add.remote(np.ones(10)), total.total.remote()])
        print(f"an actor in Rust: {sums}")

        numbers = list(rust("countdown").options(num_returns="streaming").remote(5))
        print(f"a stream from Rust: {ray.get(numbers)}")

        try:
            ray.get(rust("divide").remote(1, 0))
        except ray.exceptions.RayTaskError as error:
            failed = str(error)
            print(f"an error of Rust: {failed.splitlines()[-1]}")

        if options.check:
            assert text == "manta and eagle ray" and counts == {"manta": 2, "eagle ray": 2}
            assert (ray.get(doubled) == 2 * array).all()
            assert sums == [0.5 + 2 * array.sum(), 10.5 + 2 * array.sum(), 10.5 + 2 * array.sum()]
            assert ray.get(numbers) == [4, 3, 2, 1, 0]
            assert "1 cannot be divided by 0" in failed
            print("checked")


if __name__ == "__main__":
    main()
