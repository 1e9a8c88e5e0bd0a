"""The buckets of `dram_device_request_seconds`, where the agent and what imitates it find them."""

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60)
"""Seconds; dense where a small model on a small device answers."""
