"""Child processes for crash tests: start one, wait for what it says, kill it, read what is left."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.warm import Forked

__all__ = ["REPOSITORY", "Child", "ChildError", "WarmChild"]

REPOSITORY = Path(__file__).parents[2]


class ChildError(AssertionError):
    """The child did not do what the test waits for; the message ends with its stderr."""


class Child:
    """A Python process with this interpreter, started in the repository; leaving the context kills it.

    `Child("script.py", "argument")`, `Child("-m", "tests.support.provider")` or `Child("-c", code)`.
    """

    def __init__(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"} | dict(env or {})
        self._process = self._start([*map(str, arguments)], environment)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_stdout, self._read_stderr)]
        for reader in self._readers:
            reader.start()

    def _start(self, arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str] | Forked:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> str:
        """All that it has written to stderr so far; complete once it has ended."""
        return "".join(self._errors)

    def line(self, timeout_s: float = 30) -> str:
        """The next line of stdout; raises ChildError when none comes in time or at all."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise ChildError(f"no line within {timeout_s:g} s\n{self.stderr}") from None
        if line is None:
            self._lines.put(None)
            raise ChildError(f"ended with code {self.wait()} and said no more\n{self.stderr}")
        return line

    def wait_for(self, marker: str, timeout_s: float = 30) -> str:
        """The first line of stdout from here on that contains `marker`; raises ChildError."""
        deadline = time.monotonic() + timeout_s
        while marker not in (line := self.line(max(0.0, deadline - time.monotonic()))):
            pass
        return line

    def send_signal(self, number: int) -> None:
        """Send a signal, such as SIGTERM or SIGSTOP."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; nothing happens to one that has ended."""
        self._process.kill()
        self.wait()

    def wait(self, timeout_s: float = 30) -> int:
        """The exit code, negative for a signal; raises ChildError when it still runs."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildError(f"still running after {timeout_s:g} s\n{self.stderr}") from None
        for reader in self._readers:
            reader.join(timeout_s)
        return code

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            self._errors.extend(stderr)


class WarmChild(Child):
    """The same of a module that needs the runtime, with warnings as errors: `WarmChild("tests.module", "argument")`.

    It is forked by a server that has imported the runtime and done nothing else, which saves most of its start-up time.
    """

    def _start(self, arguments: Sequence[str], env: Mapping[str, str]) -> Forked:
        return Forked(*arguments, env=env)
