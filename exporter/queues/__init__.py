"""The vocabulary: queues, jobs, samples, counts of events, failures. No I/O, no knowledge of keys
or tables.
"""
