"""The buckets of `dram_device_request_seconds`, where the agent and what imitates it find them."""

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.1, 1.5, 2.1, 3.1, 5.1, 7.5, 10.1, 15.1, 30.1, 60.1)
"""Seconds; dense where a small model on a small device answers. No whole numbers: Prometheus calls a bucket 15.0 when it
was scraped and 15 when it was pushed, which would be two series."""
