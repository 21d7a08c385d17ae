"""How long a process takes to its first useful moment; each command in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["COMMANDS", "measure"]

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "bursar --help": [str(Path(sys.executable).parent / "bursar"), "--help"],
    "import bursar.runtime": [sys.executable, "-c", "import bursar.runtime"],
    "from bursar.runtime import Runtime": [sys.executable, "-c", "from bursar.runtime import Runtime"],
    "import langgraph.graph": [sys.executable, "-c", "import langgraph.graph"],
}


def measure(rounds: int = 5) -> dict[str, float]:
    """Median wall seconds of each command, taken in turns."""
    seen: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seen[name].append(time.perf_counter() - begun)
    return {name: statistics.median(figures) for name, figures in seen.items()}
