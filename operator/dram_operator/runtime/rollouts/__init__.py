"""What carries decisions about EdgeRollouts out: sight, the signed documents, the reconcile, and their metrics."""
