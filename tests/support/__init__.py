"""What tests and benchmarks share: a provider that keeps the true bill, and child processes that can be killed."""
