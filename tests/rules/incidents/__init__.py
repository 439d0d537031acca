"""Incidents of queue systems as generated histories, and how the shipped rules report them.

`python -m tests.rules.incidents` prints the scoreboard.
"""
