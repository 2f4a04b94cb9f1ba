"""The operations: the only door to keys, each declared once."""

from kms.operations import clients, flat, grants, keys, observe, sessions, use  # noqa: F401  # they fill the table
from kms.operations.perform import perform
from kms.operations.schedule import Schedule
from kms.operations.service import Call, Service, new_request_id
from kms.operations.table import OPERATIONS, Operation, Request, Text

__all__ = [
    "OPERATIONS",
    "Call",
    "Operation",
    "Request",
    "Schedule",
    "Service",
    "Text",
    "new_request_id",
    "perform",
]
