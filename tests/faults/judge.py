"""Compares the books of the clients with what the service says, and with what is in its vault."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from faults.changers import Changers
from faults.connection import Connection, Reply, Unanswered
from faults.ledger import Condition, KeyBook
from faults.outcome import Outcome
from faults.site import Site
from helpers.log_lines import log_entries
from kms.audit import keys, reading
from kms.audit.entry import SUCCESS
from kms.audit.note import Ed25519Signer
from kms.audit.tiles import Tiles
from kms.audit.verify import verify_log
from kms.crypto.registry import key_type
from kms.keys.model import Key, KeyState
from kms.vault.folded import audit_log
from kms.vault.opening import open_vault

_MAKES_A_VERSION = {"create_key", "import_key", "rotate_key_version"}

_ATTEMPTS = 5


def judge_answers(changers: Changers, books: Iterable[KeyBook]) -> None:
    """Ask the service about every one of these keys, as its owner and as the one who was granted its use."""
    site, outcome = changers.site, changers.outcome
    owners = [Connection(site, token) for token in changers.tokens]
    reader = Connection(site, changers.reader)
    for book in books:
        _judge_key(outcome, book, owners[book.client], reader)
    for each in (*owners, reader):
        each.close()


def _judge_key(outcome: Outcome, book: KeyBook, owner: Connection, reader: Connection) -> None:
    path = f"/api/v1/keys/{book.key_id}"
    shown = _asked(owner, "GET", path)
    if shown.status not in {200, 404}:
        outcome.find("wrong", f"GET {path}: {shown.status} {shown.body}")
        return
    used = _asked(owner, "POST", f"{path}/encrypt", {"plaintext": "AAAA"})
    granted = _asked(reader, "POST", f"{path}/encrypt", {"plaintext": "AAAA"})
    found = _condition(shown, granted, book)
    if not any(_fits(found, each) for each in book.allowed):
        if book.refused is not None and _fits(found, book.refused):
            outcome.find("wrong", f"{book.key_id}: refused ({book.refusal}), and done all the same: {book.refused}")
        else:
            is_revived = found.may_encrypt and not any(each.may_encrypt for each in book.allowed)
            outcome.find("wrong" if is_revived else "lost", f"{book.key_id}: {found}, and not {book.allowed}")
        return
    if used.is_success != found.may_encrypt:
        outcome.find("wrong", f"{book.key_id}: {found}, and encrypt answers {used.status} {used.body}")
    for version, (ciphertext, plaintext) in book.sealed.items():
        opened = _asked(owner, "POST", f"{path}/decrypt", {"ciphertext": ciphertext})
        may_open = found.may_encrypt and not (found.destroyed and version == 1)
        if opened.is_success != may_open or (may_open and opened.body["plaintext"] != plaintext):
            outcome.find(
                "wrong", f"{book.key_id} {found}: decrypt by {version} answers {opened.status} {opened.body}"
            )


def _asked(connection: Connection, method: str, path: str, body: object = None) -> Reply:
    """An answer. What changes nothing is asked again where the connection broke, as one does that has rested."""
    for _ in range(_ATTEMPTS):
        try:
            reply = connection.ask(method, path, body)
        except Unanswered:
            time.sleep(0.2)
            continue
        if reply.status != 503:  # refused plainly, such as while a machine is too busy to renew a lease
            return reply
        time.sleep(0.5)
    return connection.ask(method, path, body)


def _condition(shown: Reply, granted: Reply, book: KeyBook) -> Condition:
    if shown.status == 404:
        return Condition()
    first = next((each for each in shown.body["versions"] if each["version"] == 1), None)
    is_destroyed = first is not None and first["state"] == KeyState.DESTROYED
    may_see = granted.status != 404
    return Condition(shown.body["state"], shown.body["latest_version"], is_destroyed, may_see)


def _fits(found: Condition, allowed: Condition) -> bool:
    """Whether a key is as it may be. A key in its waiting period hides what its first version was."""
    return found == allowed


def judge_vault(changers: Changers) -> None:
    """Look into the vault of the service, which has ended: every key whole, every audit entry there, once."""
    site, outcome = changers.site, changers.outcome
    code, said = site.verify()
    if code:
        outcome.find("half_made", f"vault verify: {said}")
    vault = open_vault(site.settings)
    entries: Counter[tuple[str, str]] = Counter()
    made: Counter[str] = Counter()
    try:
        for entry in log_entries(vault, site.settings):
            entries[entry["operation"], entry["request_id"]] += 1
            if entry["operation"] in _MAKES_A_VERSION and entry["outcome"] == SUCCESS:
                made[entry["key_id"]] += 1
        with vault.read() as snapshot:
            for key in snapshot.select(Key):
                versions = snapshot.versions(key)
                if [each.version for each in versions] != list(range(1, key.latest_version + 1)):
                    outcome.find("half_made", f"{key.key_id} has the versions {[v.version for v in versions]}")
                if made[key.key_id] != len(versions):
                    outcome.find("half_made", f"{key.key_id}: {made[key.key_id]} entries, {len(versions)} versions")
                for version in versions:
                    if version.state is not KeyState.DESTROYED:
                        key_type(version.type).load(snapshot.material(key, version))
    finally:
        vault.engine.dispose()
    for book in changers.books:
        for operation, request_id, _ in book.acknowledged:
            if entries[operation, request_id] != 1:
                times = entries[operation, request_id]
                outcome.find("lost", f"the entry of {operation} {book.key_id} {request_id} is there {times} times")


def judge_tree(site: Site, outcome: Outcome) -> None:
    """Everything is folded by now, and the tree is whole: nothing in it was changed or is missing."""
    settings = site.settings
    vault = open_vault(settings)
    try:
        with vault.read() as snapshot:
            log, key = audit_log(snapshot), Ed25519Signer(audit_log(snapshot).origin, keys.log_key(snapshot)).key
        if waiting := reading.read(vault, settings.audit_log_dir, settings.spool_dir).waiting:
            outcome.find("wrong", f"{len(waiting)} entries are not folded, such as {waiting[0].decode()}")
    finally:
        vault.engine.dispose()
    verdict = verify_log(Tiles.in_directory(settings.audit_log_dir), key)
    for each in verdict.findings:
        outcome.find("wrong", f"the audit log: {each.sentence}")
    if verdict.checkpoint is None or verdict.checkpoint.size != log.size:
        outcome.find("wrong", f"the database speaks of {log.size} entries of the audit log, and its checkpoint not")


def judge_log(site: Site, outcome: Outcome) -> None:
    """No stack trace in what the service said."""
    for each in site.tracebacks:
        outcome.find("wrong", f"a stack trace: {each}")
