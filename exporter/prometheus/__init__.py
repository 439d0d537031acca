"""What Prometheus is told: each file has the metric families of one concern, beside what fills them."""
