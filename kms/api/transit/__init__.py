"""The Vault Transit dialect: unmodified Vault clients use the same keys, by translation onto the operations."""
