"""Runs: what was asked, how it stands, and how it came to that."""
