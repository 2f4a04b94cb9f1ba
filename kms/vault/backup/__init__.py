"""Backups of a whole vault: one file, made beside the running service, for either database."""
