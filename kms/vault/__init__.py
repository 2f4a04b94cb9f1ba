"""The encrypted store: sealed key material, authenticated rows, one epoch for every change."""
