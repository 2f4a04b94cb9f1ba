"""The operations: the only door to keys, each declared once."""

from kms.operations import (  # noqa: F401  # they fill the table
    access_keys,
    aliases,
    backups,
    certifying,
    clients,
    data_keys,
    deriving,
    encrypting,
    exporting,
    external,
    flat,
    fleet,
    grants,
    importing,
    keys,
    last_use,
    life,
    mounts,
    observe,
    public_keys,
    regions,
    sessions,
    signing,
    stateless,
    wrapping,
)
from kms.operations.perform import perform
from kms.operations.schedule import Schedule
from kms.operations.service import Call, Service, new_request_id
from kms.operations.table import OPERATIONS, Earlier, Items, Operation, Request, Results, Text

__all__ = [
    "OPERATIONS",
    "Call",
    "Earlier",
    "Items",
    "Operation",
    "Request",
    "Results",
    "Schedule",
    "Service",
    "Text",
    "new_request_id",
    "perform",
]
