"""HTTP: thin translations onto the operations."""
