"""The page docs/reference/faults.md, from what came out."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from faults.outcome import Outcome
from faults.runner import Fault

_HEAD = """# Faults

Faults made on purpose by `python -m tests.faults`; the last lines say with which options. One seed replays a
run as far as the machine's own timing allows.

*Tries* is how often the fault was made. *Acknowledged* are changes (for faults that are about answers:
questions) that were answered with success; *refused* those that were refused in plain words: with 503, or,
where nothing can be started, with a sentence; *unanswered* those whose connection broke.

These must be zero. *Lost*: acknowledged, and not there, or without an audit entry, or with more than one.
*Half-made*: a key without a version, rows that do not fit their head, whatever `kms vault verify` finds.
*Wrong*: an answer that is not true, such as a key that is revived, another plaintext, or "nothing was changed"
where it was; a status 500; a stack trace.

*Time to recover* is from the fault (or from its end, where it lasts) until a change, or the use that it is
about, is answered with success again: the median and the longest.

| fault | database | tries | acknowledged | refused | unanswered | lost | half-made | wrong | time to recover |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Line:
    """What came of one fault on one database; `outcome` is why it could not be made where that is so."""

    fault: Fault
    database: str
    outcome: Outcome | str
    options: str = ""

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


def keep(path: Path, line: Line) -> None:
    """Write a line into a file of results, in the place of an older one of the same fault."""
    with open(f"{path}.lock", "w") as lock:  # several runs may share it
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = json.loads(path.read_text()) if path.exists() else {}
        outcome = line.outcome if isinstance(line.outcome, str) else asdict(line.outcome)
        results[f"{line.fault.name} {line.database}"] = {"outcome": outcome, "options": line.options}
        path.write_text(json.dumps(results, indent=1))


def kept(path: Path, faults: list[Fault]) -> list[Line]:
    """The lines in a file of results, in the order of the faults; one that is not there was not made."""
    results = json.loads(path.read_text())
    lines = []
    for fault in faults:
        for database in fault.databases:
            found = results.get(f"{fault.name} {database}", {"outcome": "not in these runs", "options": ""})
            outcome = found["outcome"]
            made = outcome if isinstance(outcome, str) else Outcome(**outcome)
            lines.append(Line(fault, database, made, found["options"]))
    return lines


def page(lines: list[Line]) -> str:
    """The page."""
    text = _HEAD + "\n".join(line.row() for line in lines) + "\n"
    remarks = [
        f"- {line.fault.title} ({line.database}): {remark}"
        for line in lines
        if isinstance(line.outcome, Outcome)
        for remark in [*line.outcome.remarks, *line.outcome.findings]
    ]
    remarks += [f"- Made by `python -m tests.faults {each.options}`" for each in lines if each.options]
    return text + ("\n" + "\n".join(dict.fromkeys(remarks)) + "\n" if remarks else "")
