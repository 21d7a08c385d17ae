"""A process that says what it is, changes what no other may see, and fails at SIGTERM: a warning is an error."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings

import tests.support

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: warnings.warn("told to end", stacklevel=1))
    about = [os.getpid(), os.environ["LEDGER"], sys.argv[1:], threading.active_count(), hasattr(tests.support, "mark")]
    tests.support.mark = "made"  # type: ignore[attr-defined]
    print(json.dumps(about), flush=True)
    time.sleep(600)
