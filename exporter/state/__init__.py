"""The state file: what is kept across restarts."""
