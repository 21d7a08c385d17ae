"""Many people who decide on one escalation at the same moment, in several processes with several threads each.

    python -m tests.acceptance.deciders CONFIG ESCALATION PROCESSES THREADS

Prints one line for each of them, as JSON: what they said, and the error's class and words, or null.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from bursar.budget.errors import BursarError
from bursar.runtime.config import load_config
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.opening import open_ledger


def main(config: Path, escalation: int, processes: int, threads: int) -> None:
    """Fork, and let all of them go at once."""
    waiting, go = os.pipe()
    answers, answer = os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            os.close(go)
            _decide(config, escalation, range(number * threads, (number + 1) * threads), waiting, answer)
            os._exit(0)
        children.append(child)
    os.close(go)
    os.close(answer)
    for child in children:
        os.waitpid(child, 0)
    with os.fdopen(answers) as lines:
        sys.stdout.write(lines.read())


def _decide(config: Path, escalation: int, numbers: range, waiting: int, answer: int) -> None:
    """One process: a thread for each person."""
    read = load_config(config)
    ledger, _ = open_ledger(read)
    room = Escalations(ledger, read, lambda: datetime.now(UTC))
    ready = threading.Barrier(len(numbers))

    def decide(number: int) -> None:
        kind = "approve" if number % 2 else "reject"
        ready.wait()
        os.read(waiting, 1)  # it is at its end once the parent has let go of it
        said: dict[str, str | None] = {"by": f"person{number}", "kind": kind, "error": None, "words": None}
        try:
            room.decide(escalation, {"type": kind}, f"person{number}")
        except BursarError as error:
            said |= {"error": type(error).__name__, "words": str(error)}
        os.write(answer, f"{json.dumps(said)}\n".encode())

    people = [threading.Thread(target=decide, args=[number]) for number in numbers]
    for person in people:
        person.start()
    for person in people:
        person.join()
    ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
