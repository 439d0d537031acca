"""The state file: what is remembered over restarts."""
