"""Bull 3 and 4 in Redis or Valkey."""
