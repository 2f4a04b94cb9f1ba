"""Algorithms: one file a family, `registry` the only list of key types, `envelope` the ciphertext format."""
