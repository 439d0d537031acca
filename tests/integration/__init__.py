"""The exporter with a real Redis or Valkey, and real BullMQ."""
