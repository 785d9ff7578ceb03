"""The command ``python -m mobula``: starts and stops sessions that programs share."""

from __future__ import annotations

import argparse
import sys

from mobula import _session


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m mobula", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start a session that programs share, and print its address")
    start.add_argument("--num-cpus", type=float, help="CPUs of all programs together (default: the machine's)")
    start.add_argument("--num-gpus", type=float, help="GPUs of all programs together (default: those found)")
    start.add_argument("--resources", type=_resource, nargs="*", help="others, as in disk=1 licence=2.5")
    start.add_argument("--object-store-memory", type=int, help="bytes of objects (default: 30 %% of the memory)")
    stop = commands.add_parser("stop", help="stop a session")
    stop.add_argument("address", nargs="?", default="auto", help="what `start` has printed (default: the last one)")
    given = parser.parse_args(arguments)
    try:
        if given.command == "start":
            address = _session.start_shared(
                num_cpus=given.num_cpus,
                num_gpus=given.num_gpus,
                resources=dict(given.resources) if given.resources else None,
                object_store_memory=given.object_store_memory,
            )
            print(address)
        else:
            _session.stop_shared(given.address)
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _resource(text: str) -> tuple[str, float]:
    name, found, amount = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no name and amount, such as disk=1")
    return name.strip(), float(amount)


if __name__ == "__main__":
    sys.exit(main())
