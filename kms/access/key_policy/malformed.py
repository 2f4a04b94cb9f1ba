"""Why a key policy is not taken."""

from __future__ import annotations

INVALID_PRINCIPALS = "Policy contains a statement with one or more invalid principals."
LOCKS_OUT = "The new key policy will not allow you to update the key policy in the future."


class Malformed(ValueError):
    """A key policy that cannot be read or cannot be enforced; `reason` is a sentence, in AWS's words where known."""

    def __init__(self, reason: str) -> None:
        printable = reason.encode("ascii", "backslashreplace").decode()  # JSON can hold what UTF-8 cannot
        super().__init__(printable)
        self.reason = printable
