"""The service with caches that are full soon: `python -m benchmarks.small_caches ENTRIES ARGUMENTS…`.

Their usual bounds are reached after hours of load; only then memory has reached its bound too.
"""

from __future__ import annotations

import sys

from kms import key_cache, server
from kms.access import authentication, ratelimit
from kms.api import fast_path
from kms.api.aws import proof
from kms.revocation import published

_BOUNDS = {
    key_cache: ("_KEYS_CACHED", "_VERSIONS_CACHED", "_AUTHORIZATIONS_CACHED"),
    authentication: ("_SESSIONS_CACHED",),
    ratelimit: ("_NAMES_CACHED",),
    fast_path: ("_ROUTES_CACHED",),
    published: ("_ENTRIES_REMEMBERED",),
    proof: ("_REMEMBERED",),
}


def main() -> None:
    """Bound each cache by that number of entries, and serve; the workers are forked from here."""
    for module, names in _BOUNDS.items():
        for name in names:
            assert isinstance(getattr(module, name), int)
            setattr(module, name, int(sys.argv[1]))
    del sys.argv[1]
    server.main()


if __name__ == "__main__":
    main()
