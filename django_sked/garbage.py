"""Python's collector of cyclic garbage, kept from looking again and again at what is only being built."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_pausing = 0
_was_enabled = False


@contextmanager
def left_alone() -> Iterator[None]:
    """No collection of this process while many objects are made that all stay: it would find nothing, over and over.

    Thousands of messages took twice as long with it. Several threads may be in here; the last one to leave switches the
    collector on again, if it was on. What is done in here should be short, and call no code of others.
    """
    global _pausing, _was_enabled
    with _lock:
        if not _pausing:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pausing += 1
    try:
        yield
    finally:
        with _lock:
            _pausing = max(0, _pausing - 1)
            if not _pausing and _was_enabled:
                gc.enable()


def _renew_lock() -> None:
    """In a forked child only the thread that forked goes on."""
    global _lock, _pausing
    _lock = threading.Lock()
    if _pausing:
        _pausing = 0
        if _was_enabled:
            gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
