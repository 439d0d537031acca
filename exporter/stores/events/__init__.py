"""What all stores share for counting events: counters over time, ambiguous transitions, clocks."""
