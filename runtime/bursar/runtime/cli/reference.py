"""The reference of every command, made from their help: `python -m bursar.runtime.cli.reference > docs/commands.md`."""

from __future__ import annotations

import sys

from bursar.runtime.cli.app import app

__all__ = ["reference"]


def reference() -> str:
    """All commands as one Markdown page."""
    return app.generate_docs().rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
