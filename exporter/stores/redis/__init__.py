"""Redis and Valkey: connections that only read, bounded in time and in bytes."""
