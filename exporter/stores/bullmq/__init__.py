"""What BullMQ and Bull keep in Redis: the only package that knows a key's name or a key's layout.

BullMQ began as Bull 3, and most of its keys are still the same. Where they differ, `BullQueues`
says which of the two a queue belongs to. Facts are checked against BullMQ 5.56.3 (pinned by Open
Archiver) and 6.7.0, Bull 3.29.3 and 4.16.5. Every command sent from here is a read.
"""
