"""The wrong root key, and an older database put back, with the host's memory of it and without."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from pathlib import Path

from sqlalchemy import select

from faults.flips import copy_of, remove_copy
from faults.outcome import Outcome
from faults.questions import Original, Question, answer_of, ask, judge_logged, original, service_on, settings_of
from faults.runner import Bench, Fault
from kms.errors import StartError
from kms.vault import tables
from kms.vault.database import connect
from kms.vault.opening import open_vault

_LIVE = 0  # the first question: a decryption under the key that is in force


def wrong_root_key(bench: Bench) -> Outcome:
    """A root key of another vault, or a random one: it does not start, and nothing is written."""
    outcome, made = Outcome(), original(bench)
    for number in range(bench.rounds):
        folder, url = copy_of(made, bench.folder / f"copy-{number}", number)
        root_key = folder / "root.key"
        right, before = root_key.read_bytes(), _content(folder, url)
        root_key.write_bytes(secrets.token_bytes(len(right)))
        outcome.tries += 1
        try:
            open_vault(settings_of(folder, url)).close()
        except StartError:
            outcome.refused += 1
        else:
            outcome.find("wrong", "it opens the vault with another root key")
        if _content(folder, url) != before:
            outcome.find("wrong", "it wrote to the vault with another root key")
        root_key.write_bytes(right)
        with service_on(folder, url) as (world, logged):
            if ask(world, made, outcome, "with the right root key again"):
                outcome.find("wrong", "the right root key does not do any more")
        judge_logged(logged, outcome, "root key")
        remove_copy(folder, url)
    return outcome


def _content(folder: Path, url: str | None) -> str:
    """A digest of every row."""
    engine, digest = connect(settings_of(folder, url).database), hashlib.sha256()
    with engine.connect() as connection:
        for table in tables.metadata.sorted_tables:
            for row in sorted(repr(tuple(each)) for each in connection.execute(select(table))):
                digest.update(row.encode())
    engine.dispose()
    return digest.hexdigest()


def with_memory(bench: Bench) -> Outcome:
    """The host remembers a newer state: no key is used."""
    return _put_back(bench, forget=False)


def without_memory(bench: Bench) -> Outcome:
    """What the threat model says that nobody can notice: the file of the host is put back (here: removed) too."""
    return _put_back(bench, forget=True)


def _put_back(bench: Bench, *, forget: bool) -> Outcome:
    outcome, made = Outcome(), original(bench)
    unnoticed = 0
    for number in range(bench.rounds):
        folder, url = copy_of(made, bench.folder / f"copy-{number}", 2 * number)
        old_folder, old_url = copy_of(made, bench.folder / f"old-{number}", 2 * number + 1)
        with service_on(folder, url) as (world, _):
            live = world.login("alice")
            assert live.post("/api/v1/keys/live/revoke", {}).status_code == 200
        if url is None:
            _replace_database(old_folder, folder)
        for path in folder.glob("newest-*") if forget else ():
            path.unlink()
        outcome.tries += 1
        with service_on(folder, old_url) as (world, logged):
            unnoticed += _uses_what_was_revoked(world, made, outcome)
        judge_logged(logged, outcome, "put back")
        remove_copy(folder, url)
        remove_copy(old_folder, old_url)
    if forget:
        outcome.remarks.append(f"{unnoticed} of {outcome.tries} were not noticed, as the threat model says")
    elif unnoticed:
        outcome.find("wrong", f"{unnoticed} times a key was used that had been revoked")
    return outcome


def _uses_what_was_revoked(world: object, made: Original, outcome: Outcome) -> bool:
    question: Question = made.questions[_LIVE]
    status, body = answer_of(world, made, question)  # type: ignore[arg-type]  # a World
    if status == 503:
        outcome.refused += 1
    elif status != 200:
        outcome.find("wrong", f"the use of the key answers {status} {body}")
    else:
        outcome.acknowledged += 1
    return status == 200


def _replace_database(source: Path, target: Path) -> None:
    for suffix in ("-wal", "-shm"):
        (target / f"kms.db{suffix}").unlink(missing_ok=True)
    shutil.copyfile(source / "kms.db", target / "kms.db")


FAULTS = [
    Fault("root-key", "another root key", wrong_root_key, 10, on_disk=False),
    Fault("put-back", "an older database put back", with_memory, 10, on_disk=False),
    Fault("put-back-all", "an older database and the host's file put back", without_memory, 5, on_disk=False),
]
