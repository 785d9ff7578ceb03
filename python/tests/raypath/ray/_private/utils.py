"""Small functions of Ray that tests import."""

import asyncio
import signal
import threading
from contextlib import contextmanager

from ray._private._absent import absent


def decode(byte_str, allow_none=False, encode_type="utf-8"):
    return "" if byte_str is None and allow_none else byte_str.decode(encode_type)


def binary_to_hex(identifier):
    return identifier.hex()


def hex_to_binary(hex_identifier):
    return bytes.fromhex(hex_identifier)


def get_or_create_event_loop():
    try:
        # The running one, or that of this thread.
        return asyncio.get_event_loop()
    except RuntimeError:
        return asyncio.new_event_loop()


@contextmanager
def DeferSigint():
    """Hold SIGINT back until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


__getattr__ = absent("ray._private.utils")
