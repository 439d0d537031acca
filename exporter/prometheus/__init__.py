"""What Prometheus is told: a file for each concern, its families beside what fills them."""
