"""Approvals: calls that are carried out only after other people have approved them."""
