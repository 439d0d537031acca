"""Follows the events of queues in PostgreSQL."""
