"""`python -m bursar.runtime.cli`, the same as `bursar`."""

from __future__ import annotations

import sys

from bursar.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
