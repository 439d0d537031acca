"""The loops that keep watch: discovery, polls, collectors, and what publishes their results."""
