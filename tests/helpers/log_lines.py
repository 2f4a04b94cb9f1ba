"""What is in the audit log of a vault, folded or not."""

from __future__ import annotations

import json
from typing import Any

from kms.audit import reading
from kms.config import Settings
from kms.vault.store import Vault


def log_entries(vault: Vault, settings: Settings) -> list[dict[str, Any]]:
    """Every entry, decoded; those that wait first."""
    log = reading.read(vault, settings.audit_log_dir, settings.spool_dir)
    return [json.loads(line) for line in log.newest_first()]
