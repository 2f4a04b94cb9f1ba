"""One bit the other way round: in every column of every table, and anywhere in every file of the data directory."""

from __future__ import annotations

import re
import shutil
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import psycopg
from sqlalchemy import LargeBinary, Table, create_engine, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from faults.outcome import Outcome
from faults.questions import Original, answer_of, ask, judge_logged, original, service_on
from faults.runner import Bench, Fault
from helpers.every_table import flipped
from helpers.support import LEASE
from kms.errors import Refusal, StartError
from kms.vault import tables
from kms.vault.checking import altered_rows, wrong_tables
from kms.vault.store import Vault


def in_rows(bench: Bench) -> Outcome:
    """Each column of some row of each table, in an order that the seed decides."""
    outcome, made, chance = Outcome(), original(bench), bench.chance("flips in rows")
    columns = [(table, column.name) for table in tables.metadata.sorted_tables for column in table.columns]
    chance.shuffle(columns)
    unnoticed: list[str] = []
    for number, (table, column) in enumerate(columns[: bench.rounds]):
        folder, url = copy_of(made, bench.folder / f"copy-{number}", number)
        flip = _flip_column(folder, url, table, column, chance)
        if flip is not None:
            outcome.tries += 1
            if not _is_noticed(folder, url, made, outcome, f"{table.name}.{column}: {flip}"):
                unnoticed.append(f"{table.name}.{column}")
        remove_copy(folder, url)
    hidden = sorted({each.partition(":")[0] for each in outcome.hidden})
    if hidden:
        outcome.remarks.append(f"hidden from a list until the check of the whole found it: {', '.join(hidden)}")
    outcome.remarks.append(
        f"{outcome.tries} columns; without effect on any answer and not found either: "
        f"{', '.join(sorted(unnoticed)) or 'none'}"
    )
    return outcome


def copy_of(made: Original, folder: Path, number: int) -> tuple[Path, str | None]:
    """A copy of that vault: its data directory, at `folder`, and the URL of its database, which `number` names."""
    shutil.copytree(made.folder, folder)
    if made.database_url is None:
        return folder, None
    server, _, name = made.database_url.rpartition("/")
    with closing(psycopg.connect(f"{server}/postgres", autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}_{number} TEMPLATE {name}")  # type: ignore[arg-type]  # our own name
    return folder, f"{made.database_url}_{number}"


def remove_copy(folder: Path, url: str | None) -> None:
    """Remove what `copy_of` made."""
    shutil.rmtree(folder)
    if url is not None:
        server, _, name = url.rpartition("/")
        with closing(psycopg.connect(f"{server}/postgres", autocommit=True)) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]  # our own name


def _flip_column(folder: Path, url: str | None, table: Table, column: str, chance: Random) -> str | None:
    """What was made of what; None where the table has no row, or the database does not take the value."""
    at = make_url(url or f"sqlite:///{folder / 'kms.db'}")
    engine = create_engine(at.set(drivername="postgresql+psycopg") if url else at)
    try:
        with engine.begin() as connection:
            rows = connection.execute(select(table)).mappings().all()
            if not rows:
                return None
            row = chance.choice(rows)
            before = row[column]
            after = flipped(before, chance.randrange(4096))
            if before is None and isinstance(table.c[column].type, LargeBinary):
                after = b"x"
            place = [each == row[each.name] for each in table.primary_key.columns]
            connection.execute(update(table).where(*place).values({column: after}))
            return f"{before!r:.60} to {after!r:.60}"
    except DBAPIError:
        return None
    finally:
        engine.dispose()


def _is_noticed(folder: Path, url: str | None, made: Original, outcome: Outcome, what: str) -> bool:
    """Open a service on it and ask everything: whether anything was refused, or the check of the whole names it."""
    try:
        with service_on(folder, url) as (world, logged):
            is_refused = ask(world, made, outcome, what)
            is_found = _is_found(world.service.vault, outcome, what)
            if outcome.hidden.count(what) and not is_found:
                outcome.find("wrong", f"{what}: something is hidden, and the check of the whole does not find it")
        judge_logged(logged, outcome, what)
    except (StartError, Refusal):
        outcome.refused += 1
        return True
    except Exception:  # noqa: BLE001  # whatever it is, it is a finding
        outcome.find("wrong", f"{what}: {traceback.format_exc()[-1200:]}")
        return True
    return is_refused or is_found


def _is_found(vault: Vault, outcome: Outcome, what: str) -> bool:
    try:
        return bool(wrong_tables(vault) or list(altered_rows(vault)) or vault.host.distrust)
    except Refusal:
        outcome.refused += 1
        return True


def in_files_at_rest(bench: Bench) -> Outcome:
    """A bit in a file of the data directory of a service that was killed; then it is started."""
    outcome, made, chance = Outcome(), original(bench), bench.chance("flips in files")
    _leave_as_killed(made)
    unnoticed: Counter[str] = Counter()
    for number in range(bench.rounds):
        folder = shutil.copytree(made.folder, bench.folder / f"copy-{number}")
        what = _flip_file(folder, chance)
        outcome.tries += 1
        if not _is_noticed(folder, made.database_url, made, outcome, what):
            unnoticed[what.partition(" ")[0]] += 1
        shutil.rmtree(folder)
    outcome.remarks.append(f"without effect on any answer and not found either: {_shown(unnoticed)}")
    return outcome


def _leave_as_killed(made: Original) -> None:
    """With its write-ahead log, spools and files of the run, as they are while it runs."""
    running = made.folder.with_name("running")
    with service_on(made.folder, made.database_url) as (world, _):
        ask(world, made, Outcome(), "before")
        world.admin.post("/api/v1/keys", {"key_id": "newest"})
        shutil.copytree(made.folder, running)
    shutil.rmtree(made.folder)
    running.rename(made.folder)
    with service_on(shutil.copytree(made.folder, running), made.database_url) as (world, _):
        made.answers = [answer_of(world, made, each) for each in made.questions]
    shutil.rmtree(running)


def in_files_live(bench: Bench) -> Outcome:
    """A bit in a file that a running service has open."""
    outcome, made, chance = Outcome(), original(bench), bench.chance("flips in open files")
    unnoticed: Counter[str] = Counter()
    for number in range(bench.rounds):
        folder = shutil.copytree(made.folder, bench.folder / f"copy-{number}")
        what = "before"
        try:
            with service_on(folder, made.database_url) as (world, logged):
                ask(world, made, outcome, what)
                what = _flip_file(folder, chance)
                outcome.tries += 1
                time.sleep(LEASE.total_seconds() * 2)
                is_refused = ask(world, made, outcome, what)
                world.service.memory._forget_everything()  # as a worker that has not read anything yet
                is_refused |= ask(world, made, outcome, what)
                if not is_refused and not _is_found(world.service.vault, outcome, what):
                    unnoticed[what.partition(" ")[0]] += 1
            judge_logged(logged, outcome, what)
        except (StartError, Refusal):
            outcome.refused += 1
        except Exception:  # noqa: BLE001  # whatever it is, it is a finding
            outcome.find("wrong", f"{what}: {traceback.format_exc()[-1200:]}")
        shutil.rmtree(folder)
    outcome.remarks.append(f"without effect on any answer and not found either: {_shown(unnoticed)}")
    return outcome


def _flip_file(folder: Path, chance: Random) -> str:
    """Where. The database is as likely as all of the others together."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    database = [path for path in files if path.name.startswith("kms.db")]
    path = chance.choice(database if database and chance.random() < 0.5 else files)
    size = path.stat().st_size
    # Most of the host's file is zeros without a meaning, and of a spool what was allocated ahead.
    at = chance.randrange(min(size, 1100) if "newest" in path.name else size)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    return f"{_kind(path)} at {at} of {size}"


def _kind(path: Path) -> str:
    """What file it is, without what differs from run to run."""
    name = re.sub(r"-[0-9a-f]{32}|[-_]\d+", "-*", path.name)
    return "spool" if name.startswith("spool") else name.replace("-*-*", "-*")


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


FAULTS = [
    Fault(
        "flip-rows",
        "a bit flipped in a row (in a full run: in each column of each table)",
        in_rows,
        400,
        on_disk=False,
    ),
    Fault("flip-files", "a bit flipped in a file of a killed service", in_files_at_rest, 250, on_disk=False),
    Fault("flip-live", "a bit flipped in a file of a running service", in_files_live, 100, on_disk=False),
]
