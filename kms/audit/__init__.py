"""The audit log: one entry for every operation, or the operation is refused."""
