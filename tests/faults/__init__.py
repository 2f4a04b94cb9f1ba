"""Faults made on purpose, against the real service: what was acknowledged is there, nothing is half-made or revived.

`python -m tests.faults` runs them all and writes docs/reference/faults.md; one seed replays the same run, as far as
the machine's own timing allows. Each kind of fault has a file; `ledger` is the clients' side of the truth, `judge`
compares it with what the service says afterwards.
"""
