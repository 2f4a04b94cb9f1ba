"""Later."""

FAULTS = []
