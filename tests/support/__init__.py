"""What tests share: real servers and programs, the exporter, and how to wait."""
