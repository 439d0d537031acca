"""The metrics: a file for each concern, its families next to what fills them."""
