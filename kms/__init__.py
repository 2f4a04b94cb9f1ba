"""A self-hosted Key Management System: keys, their lifecycle and their use."""

__version__ = "0.1.0"
