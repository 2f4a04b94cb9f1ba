"""Verification of a whole log, by anybody who has its files and its verifier key.

`whole_log.verify_log` reads everything once (`reading`), decides from the root down which hashes are right
(`judging`, by `evidence`), compares entries where they are not (`wrong_entries`, `differences`), and returns what it
finds (`findings`).
"""

from kms.audit.verify.findings import Cosigned, Finding, Glimpse, Kind, Verdict
from kms.audit.verify.judging import Hint
from kms.audit.verify.whole_log import Progress, verify_log

__all__ = ["Cosigned", "Finding", "Glimpse", "Hint", "Kind", "Progress", "Verdict", "verify_log"]
