"""Follows what BullMQ writes of each job into its queues' event streams, and counts it."""
