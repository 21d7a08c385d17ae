"""Processes without their start-up time: a server has imported the runtime, and forks each of them."""

from __future__ import annotations

import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

__all__ = ["Forked"]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.support.warm_imports"])


class Forked:
    """A process that runs a module, with as much of `subprocess.Popen` as a `Child` needs."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str]) -> None:
        self.stdout, stdout = _pipe()
        self.stderr, stderr = _pipe()
        with stdout, stderr:
            self._process = _SERVER.Process(target=_run, args=(module, arguments, env, stdout, stderr))
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; nothing happens to one that has ended."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """The exit code, negative for a signal; raises TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self._process.exitcode


def _pipe() -> tuple[io.TextIOWrapper, Connection]:
    """What to read from, and what the process writes to."""
    ours, theirs = _SERVER.Pipe(duplex=False)
    with ours:
        return os.fdopen(os.dup(ours.fileno())), theirs


def _run(module: str, arguments: Sequence[str], env: Mapping[str, str], stdout: Connection, stderr: Connection) -> None:
    """Be the process of that module."""
    assert threading.active_count() == 1, "the server had a thread, which the fork has lost"
    os.environ.clear()
    os.environ.update(env)
    for number, written in enumerate((stdout, stderr), start=1):
        with written:
            os.dup2(written.fileno(), number)
    warnings.simplefilter("error")
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
