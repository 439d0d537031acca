"""What the loops have in common: supervision, backoff, priority of requests, batches."""
