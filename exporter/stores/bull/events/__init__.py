"""The events that Bull publishes. They are not stored: what is not heard is lost."""
