"""What carries decisions out on a cluster: the cache, the queue, the reconcile, the lease, progress and metrics."""
