"""A deterministic simulation of the vault's changes: the real code, on a simulated clock, scheduler and database.

`docs/decisions/0025-simulation.md` says what is real in it. `python -m tests.simulation --help` runs it by hand.
"""
