"""What callers are told where the database did not carry something out."""

from __future__ import annotations

BUSY = "The database is busy or away; nothing was changed. Try again."
READ_ONLY = "The database takes no changes now (it is read-only); nothing was changed. Try again."
UNKNOWN = "The database went away while it was to make this durable. Look whether it was changed."
FULL = "The database cannot be written (disk full); nothing was changed. Free some space and try again."
TAKEN_AWAY = (
    "The file of the database was taken away or replaced while this was written. "
    "Look whether it holds, once the file is back."
)
CHANGED = "It was changed, but the database is away now. Look whether it holds."
