"""What BullMQ keeps in Redis: the only package that knows a key's name or a key's layout.

Facts are checked against BullMQ 5.56.3 (pinned by Open Archiver) and 6.7.0. Every command
sent from here is a read.
"""
