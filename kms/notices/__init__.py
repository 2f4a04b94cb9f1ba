"""Notices: clients are told what happens to their keys, by signed webhooks or by mail.

What happened is written into an outbox in the same transaction as the change itself, once for each subscription that
it is for. Workers claim what is due there, send it, and try again with growing pauses.
"""
