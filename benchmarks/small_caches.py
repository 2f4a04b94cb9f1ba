"""The service with caches that are full soon: `python -m benchmarks.small_caches ENTRIES ARGUMENTS…`.

Their usual bounds are reached after hours of load; only then memory has reached its bound too. Those of SQLite, one
for each connection, get as many kibibytes for pages, and sixteen prepared statements. Every `lru_cache` is bounded.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

_BOUNDS = {
    "kms.key_cache": ("_KEYS_CACHED", "_VERSIONS_CACHED", "_AUTHORIZATIONS_CACHED"),
    "kms.access.authentication": ("_SESSIONS_CACHED",),
    "kms.access.ratelimit": ("_NAMES_CACHED",),
    "kms.access.shared_counters": ("_NAMES_REMEMBERED",),
    "kms.message_quota": ("_VERSIONS_COUNTED",),
    "kms.last_uses": ("_MOST_REMEMBERED",),
    "kms.api.aws.proof": ("_REMEMBERED",),
}


def main() -> None:
    """Bound each cache by that number of entries, and serve; the workers are forked from here."""
    entries = int(sys.argv.pop(1))
    connect, lru_cache = sqlite3.connect, functools.lru_cache

    def small_connect(*where: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*where, cached_statements=16, **options)
        connection.execute(f"PRAGMA cache_size = -{entries}")
        return connection

    def small_lru_cache(maxsize: Any = 128, typed: bool = False) -> Callable[..., Any]:
        return lru_cache(min(maxsize, entries) if isinstance(maxsize, int) else maxsize, typed)

    sqlite3.connect = sqlite3.dbapi2.connect = small_connect  # type: ignore[assignment]
    functools.lru_cache = small_lru_cache  # type: ignore[assignment]
    for name, bounds in _BOUNDS.items():
        module = import_module(name)
        for bound in bounds:
            assert isinstance(getattr(module, bound), int)
            setattr(module, bound, entries)
    index_file: Any = import_module("kms.audit.index_file")
    index_file._CACHE_SIZE = f"PRAGMA cache_size = -{entries}"
    import_module("kms.server").main()


if __name__ == "__main__":
    main()
