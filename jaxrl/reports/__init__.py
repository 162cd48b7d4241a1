"""What people look at: curves, animations, rows of metrics."""
