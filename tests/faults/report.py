"""The page docs/reference/faults.md, from what came out."""

from __future__ import annotations

from dataclasses import dataclass

from faults.outcome import Outcome
from faults.runner import Fault

_HEAD = """# Faults

Made by `python -m tests.faults {options} --report docs/reference/faults.md`, which makes the faults
on purpose. *Tries* is how often the fault was made; *acknowledged* are changes (for faults that are about
answers: questions) that were answered with success; *refused* those that were refused in plain words, with a 503 or,
where nothing can be started, with a sentence; *unanswered* those whose connection broke. What must be zero: *lost* is
what was acknowledged and is not there, or has no audit entry, or more than one; *half-made* is a key without a
version, rows that do not fit their head, whatever `kms vault verify` finds; *wrong* is an answer that is not true: a
key that is revived, another plaintext, a refusal that says that nothing was changed where it was, a status 500, a
stack trace in the log. *Time to recover* is from the fault (or from its end, where it lasts) until a change, or the
use it is about, is answered with success again: the median and the longest.

| fault | database | tries | acknowledged | refused | unanswered | lost | half-made | wrong | time to recover |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Line:
    """What came of one fault on one database; `outcome` is why it could not be made where that is so."""

    fault: Fault
    database: str
    outcome: Outcome | str

    def shown(self) -> str:
        """For the terminal."""
        if isinstance(self.outcome, str):
            return f"{self.fault.name} {self.database}: not made: {self.outcome}"
        o = self.outcome
        counts = f"{o.tries} tries, {o.acknowledged} acknowledged, {o.refused} refused, {o.unanswered} unanswered"
        text = f"{self.fault.name} {self.database}: {counts}; lost {o.lost}, half-made {o.half_made}, wrong {o.wrong}"
        return "\n    ".join([f"{text}; back in {o.recovered_in}", *o.remarks, *o.findings[:20]])

    def row(self) -> str:
        """For the table of the page."""
        if isinstance(self.outcome, str):
            return f"| {self.fault.title} | {self.database} | not made: {self.outcome} | | | | | | | |"
        o = self.outcome
        counts = (o.tries, o.acknowledged, o.refused, o.unanswered, o.lost, o.half_made, o.wrong)
        cells = " | ".join(f"{count:,}" for count in counts)
        return f"| {self.fault.title} | {self.database} | {cells} | {o.recovered_in} |"


def page(lines: list[Line], options: str) -> str:
    """The page."""
    text = _HEAD.format(options=options) + "\n".join(line.row() for line in lines) + "\n"
    remarks = [
        f"- {line.fault.title} ({line.database}): {remark}"
        for line in lines
        if isinstance(line.outcome, Outcome)
        for remark in [*line.outcome.remarks, *line.outcome.findings]
    ]
    return text + ("\n" + "\n".join(dict.fromkeys(remarks)) + "\n" if remarks else "")
