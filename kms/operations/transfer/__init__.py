"""Keys that come in and go out: import, export, material kept elsewhere, backups."""
