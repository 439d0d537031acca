"""BullMQ's queues in PostgreSQL (BullMQ 6 and later): its tables, and a client that only reads."""
