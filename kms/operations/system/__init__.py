"""What operators need and what happens by itself: audit log, metrics, mounts, schedule, checks."""
