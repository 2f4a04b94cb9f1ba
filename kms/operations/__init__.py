"""The operations: the only way to keys, each declared once."""

# They fill the table as they are imported.
import kms.operations.accounts.access_keys
import kms.operations.accounts.approval_rules
import kms.operations.accounts.approvals
import kms.operations.accounts.clients
import kms.operations.accounts.grants
import kms.operations.accounts.groups
import kms.operations.accounts.issuers
import kms.operations.accounts.passkeys
import kms.operations.accounts.public_keys
import kms.operations.accounts.second_factor
import kms.operations.accounts.sessions
import kms.operations.keys.aliases
import kms.operations.keys.fleet
import kms.operations.keys.last_use
import kms.operations.keys.listing
import kms.operations.keys.manage
import kms.operations.keys.public_keys
import kms.operations.keys.quickstart
import kms.operations.keys.regions
import kms.operations.keys.state_changes
import kms.operations.keys.summary
import kms.operations.system.auditing
import kms.operations.system.blast_radius
import kms.operations.system.deliveries
import kms.operations.system.inventory
import kms.operations.system.monitoring
import kms.operations.system.mounts
import kms.operations.system.notices
import kms.operations.system.policy
import kms.operations.system.status
import kms.operations.system.transparency
import kms.operations.transfer.backups
import kms.operations.transfer.exporting
import kms.operations.transfer.external
import kms.operations.transfer.importing
import kms.operations.use.certifying
import kms.operations.use.data_keys
import kms.operations.use.deriving
import kms.operations.use.encrypting
import kms.operations.use.random_and_hash
import kms.operations.use.signing
import kms.operations.use.wrapping  # noqa: F401
from kms.operations.core.declare import (
    OPERATIONS,
    BatchItems,
    BatchResults,
    BytesAnswer,
    FromAnswerOf,
    Operation,
    Request,
    TextAnswer,
)
from kms.operations.core.execute import execute_operation
from kms.operations.core.request_ids import new_request_id
from kms.operations.core.service import Call, Service
from kms.operations.system.schedule import Schedule

__all__ = [
    "OPERATIONS",
    "BatchItems",
    "BatchResults",
    "BytesAnswer",
    "Call",
    "FromAnswerOf",
    "Operation",
    "Request",
    "Schedule",
    "Service",
    "TextAnswer",
    "execute_operation",
    "new_request_id",
]
