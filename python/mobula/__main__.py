"""The command ``mobula``, also as ``python -m mobula``: starts sessions, and shows and controls them."""

from __future__ import annotations

import signal
import sys

from mobula import _session


def main() -> int:
    """Run the command with the arguments of this process."""
    # Ctrl-C ends it, as it ends other programs: no Python code runs that would see the signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _session.run_command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
