"""Bursar beside LiteLLM's proxy on the same upstream, in ratios; `make bench-peers` prints it."""
