"""Processes without their start-up time: one imports everything, and forks a child for each thing to be done."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["in_child", "ready_to_fork"]


def ready_to_fork() -> None:
    """Say that everything was called once, so that a child finds it imported; waits for imports in the background."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()  # a fork would lose it
    # To load the certificates, which no test needs, would take each child a fifth of its time.
    context = ssl.create_default_context()
    ssl.create_default_context = lambda *_, **__: context
    gc.freeze()


def in_child(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Do this in a process of its own; returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(work())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit("a child failed")
    return 0
