"""Moving keys in and out: import, export, externally kept key material, backups."""
