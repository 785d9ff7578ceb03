"""What workers print, in the output of the program."""

from __future__ import annotations

import sys


def show(is_error: bool, lines: bytes) -> bool:
    """Write lines into ``sys.stdout`` or ``sys.stderr``. Called by a thread of the session.

    Returns whether they are written: not where these are the process's own, which the session writes itself. That takes
    neither the interpreter's lock nor a buffer, and waits for a reader that is slow.
    """
    stream, own = (sys.stderr, sys.__stderr__) if is_error else (sys.stdout, sys.__stdout__)
    if stream is None or stream is own:
        return False
    text = lines.decode(errors="replace")
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()
    return True
