"""What counting events needs in every store: counters over time, what they leave open, clocks."""
