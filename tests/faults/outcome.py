"""What came of one kind of fault on one database."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Counts of one kind of fault, and what went wrong in words.

    `tries` is how often the fault was made. Of the changes (or of the answers, where a fault is about these)
    `acknowledged` were answered with success, and `refused` with a plain refusal. `lost`, `half_made` and `wrong` are
    those that must not be: acknowledged and not there; there in part; an answer that is not true, which is also a key
    that is revived, a refusal of what was done all the same, a status 500 and a stack trace. `recovery` is seconds
    from the fault, or from its end where it lasts, until the service answers as before.
    """

    tries: int = 0
    acknowledged: int = 0
    lost: int = 0
    half_made: int = 0
    wrong: int = 0
    refused: int = 0
    unanswered: int = 0
    recovery: list[float] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.lost or self.half_made or self.wrong)

    def find(self, kind: str, sentence: str) -> None:
        """Count something that must not be, once: `kind` is "lost", "half_made" or "wrong"."""
        finding = f"{kind}: {sentence}"
        if finding not in self.findings:
            setattr(self, kind, getattr(self, kind) + 1)
            self.findings.append(finding)

    @property
    def recovered_in(self) -> str:
        """The median and the longest time to recover."""
        if not self.recovery:
            return "–"
        longest = max(self.recovery)
        if len(self.recovery) == 1:
            return f"{longest:.1f} s"
        return f"{statistics.median(self.recovery):.1f} s, at most {longest:.1f} s"


class Skipped(Exception):
    """This fault cannot be made here; says why."""
