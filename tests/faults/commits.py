"""SIGKILL inside a commit: a process that does nothing but change a vault dies after some microseconds, very often.

The process is forked from this one, opens the vault, and changes it from several threads, so
that commits are shared. It writes what was acknowledged into a pipe, which outlives it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from sqlalchemy import select

from faults.outcome import Outcome
from faults.runner import Bench, Fault
from kms.access import clients
from kms.access.model import Role
from kms.config import Settings
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.keys.cryptoperiod import Cryptoperiods
from kms.keys.model import Key, KeyState, RevocationReason
from kms.operations.keys.key_factory import KeySpec, new_key, next_version
from kms.revocation.revoke import revoke
from kms.vault import tables
from kms.vault.checking import altered_rows, wrong_tables
from kms.vault.opening import open_vault
from kms.vault.store import Vault

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_KIND = key_type("xaes-256-gcm")
_OWNER = "user1"
_THREADS = 6
_LONGEST_SECONDS = 0.03
_FIRST_SHARE, _UNCHECKED_SHARE = 0.3, 0.75
_PATIENCE_SECONDS = 30
_VAULT_LASTS = 100  # rounds; so that checking the whole of it stays quick
STAGES = ("made", "rotated", "revoked")


def inside_commits(bench: Bench) -> Outcome:
    """Kill such a process in each round, and compare the vault with what it acknowledged."""
    outcome, chance = Outcome(), bench.chance("commits")
    forked = multiprocessing.get_context("fork")  # everything is imported; this process has no vault open meanwhile
    acknowledged: dict[str, int] = {}
    settings = None
    for number in range(bench.rounds):
        if number % _VAULT_LASTS == 0:
            if settings is not None:
                shutil.rmtree(settings.data_dir)
            settings, acknowledged = _new_vault(bench, number), {}
        assert settings is not None
        acknowledged |= _killed(forked, settings, number, chance, outcome)
        if number % _VAULT_LASTS in {_VAULT_LASTS - 1, bench.rounds - 1} or chance.random() > _UNCHECKED_SHARE:
            began = time.monotonic()
            _compare(settings, acknowledged, outcome)
            outcome.recovery.append(time.monotonic() - began)
    return outcome


def _new_vault(bench: Bench, number: int) -> Settings:
    url = bench.databases.new_url(bench.folder)
    settings = Settings(data_dir=bench.folder / f"vault-{number}", database_url=url, log_level="error")
    vault = open_vault(settings)
    with vault.change() as change:
        clients.create(change, _OWNER, frozenset({Role.USER}), _NOW)
    vault.close()
    return settings


def _killed(
    forked: multiprocessing.context.ForkContext, settings: Settings, number: int, chance: Random, outcome: Outcome
) -> dict[str, int]:
    """One life: how many stages of each key were acknowledged."""
    ours, theirs = forked.Pipe(duplex=False)
    child = forked.Process(
        target=_change_until_killed, args=(settings.data_dir, settings.database_url, number, theirs)
    )
    child.start()
    theirs.close()
    acknowledged: dict[str, int] = {}
    with suppress(EOFError, OSError):
        ours.recv_bytes()  # it has opened the vault
        if chance.random() > _FIRST_SHARE:
            ours.poll(_PATIENCE_SECONDS)  # its first commit is over
        time.sleep(chance.random() * _LONGEST_SECONDS)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        while True:
            key_id, _, stages = ours.recv_bytes().decode().partition(" ")
            acknowledged[key_id] = int(stages)
    child.join()
    outcome.tries += 1
    outcome.acknowledged += sum(acknowledged.values())
    outcome.unanswered += _THREADS  # each was about something
    return acknowledged


def _change_until_killed(data_dir: Path, url: str | None, number: int, pipe: Connection) -> None:
    vault = open_vault(Settings(data_dir=data_dir, database_url=url, log_level="error"))
    saying = threading.Lock()

    def say(text: str) -> None:
        with saying:
            pipe.send_bytes(text.encode())

    def work(thread: int) -> None:
        for count in range(1_000_000):
            key_id = f"r{number}-{thread}-{count}"
            for stages, _ in enumerate(STAGES, 1):
                _carry_out(vault, key_id, stages)
                say(f"{key_id} {stages}")

    say("ready")
    threads = [threading.Thread(target=work, args=(each,)) for each in range(_THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def _carry_out(vault: Vault, key_id: str, stage: int) -> None:
    material = KeyMaterial.of(_KIND, _KIND.generate())
    with vault.change() as change:
        if stage == 1:
            new_key(change, Cryptoperiods(), KeySpec(_KIND, _OWNER, key_id), material, _NOW)
        else:
            key = change.key_by_id(key_id)
            assert key is not None
            if stage == 2:
                next_version(change, Cryptoperiods(), key, _KIND, material, _NOW)
            else:
                revoke(change, key, RevocationReason.KEY_COMPROMISE, _NOW)
        change.record(json.dumps({"key_id": key_id, "stage": stage}))


def _compare(settings: Settings, acknowledged: dict[str, int], outcome: Outcome) -> None:
    vault = open_vault(settings)
    try:
        for each in [*altered_rows(vault), *wrong_tables(vault), *filter(None, [vault.host.distrust])]:
            outcome.find("half_made", each)
        with vault.read() as snapshot:
            texts = snapshot.connection.execute(select(tables.audit_outbox.c.entry)).scalars()
            entries = Counter((each["key_id"], each["stage"]) for each in map(json.loads, texts))
            found = {}
            for key in snapshot.select(Key):
                versions = snapshot.versions(key)
                is_revoked = all(each.state is KeyState.COMPROMISED for each in versions)
                found[key.key_id] = stage = 3 if is_revoked else len(versions)
                if len(versions) != min(stage, 2) or key.latest_version != len(versions):
                    outcome.find("half_made", f"{key.key_id} is at {STAGES[stage - 1]} with {len(versions)} versions")
                for version in versions:
                    snapshot.material(key, version)
                if any(entries[key.key_id, each] != (each <= stage) for each in (1, 2, 3)):
                    outcome.find("half_made", f"the audit entries of {key.key_id} do not fit {STAGES[stage - 1]}")
        for key_id, stages in acknowledged.items():
            if found.get(key_id, 0) < stages:
                outcome.find("lost", f"{key_id} was {STAGES[stages - 1]}, and is at {found.get(key_id, 0)} of 3")
    finally:
        vault.close()


FAULTS = [Fault("kill-in-commit", "kill -9 of a process inside its commits", inside_commits, full=800)]
