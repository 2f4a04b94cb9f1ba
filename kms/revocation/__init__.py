"""The revocation list: what was revoked, why and when, and its signed form."""
