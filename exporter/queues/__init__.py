"""The vocabulary: queues, jobs, samples, counts of events, failures. No I/O, no key, no table."""
