"""Faults that are put into the real code on purpose, each as a small patch of its source.

A patch says which text of which function is replaced by which. Where the text is not there any more the patch fails,
so that no fault is looked for that is no longer put in.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from kms.key_cache import KeyCache
from kms.vault.change import Change
from kms.vault.head import Head
from kms.vault.host import Host
from kms.vault.memory import Cache, Memory, Standing
from kms.vault.nodes import Nodes
from kms.vault.queue import Group
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot


@dataclass(frozen=True)
class Patch:
    """In the function `name` of `owner`, `text` is replaced by `by`."""

    owner: type
    name: str
    text: str
    by: str

    def applied(self, source: str) -> str:
        """`source` with the fault in it."""
        if source.count(self.text) != 1:
            raise ValueError(f"{self.owner.__name__}.{self.name} does not contain {self.text!r} once")
        return source.replace(self.text, self.by)


@dataclass(frozen=True)
class Fault:
    """What is wrong with it, in a sentence, and the patches that make it so."""

    what: str
    patches: tuple[Patch, ...]


def _fault(what: str, *patches: tuple[type, str, str, str]) -> Fault:
    return Fault(what, tuple(Patch(*each) for each in patches))


FAULTS: dict[str, Fault] = {
    "announce-before-commit": _fault(
        "The epoch is announced before the commit: a crash in between leaves a host that refuses.",
        (
            Vault,
            "_commit",
            "    self._make_durable(group)\n",
            "    if group.outdated:\n        self.host.announce(head.epoch)\n    self._make_durable(group)\n",
        ),
    ),
    "not-announced": _fault(
        "A commit does not announce its epoch to the workers of its host.",
        (Vault, "_commit", "self.host.announce(head.epoch)", "pass"),
    ),
    "no-wait-for-leases": _fault(
        "A change does not wait for the leases of other nodes.",
        (Vault, "_outlast_leases", "time.sleep(max(", "(max("),
    ),
    "wait-of-nine-tenths": _fault(
        "A change waits for nine tenths of a lease.",
        (Vault, "_outlast_leases", "self.lease_seconds * _CLOCKS_DIFFER_BY", "self.lease_seconds * 0.9"),
    ),
    "clocks-taken-for-equal": _fault(
        "A change does not allow for clocks that go at different speeds.",
        (Vault, "_outlast_leases", " * _CLOCKS_DIFFER_BY", ""),
    ),
    "lease-from-the-end-of-the-read": _fault(
        "A lease is counted from the end of the read of the head.",
        (
            Memory,
            "renew",
            "max(self.ends, began + self._seconds)",
            "max(self.ends, steady_seconds() + self._seconds)",
        ),
    ),
    "lease-from-the-end-of-the-glance": _fault(
        "A lease that is renewed at a glance is counted from its end.",
        (Memory, "_renewed_at_a_glance", "began + self._seconds", "steady_seconds() + self._seconds"),
    ),
    "lease-at-another-head": _fault(
        "A glance renews a lease though the head is another.",
        (Memory, "_renewed_at_a_glance", " or sealed != self._sealed", ""),
    ),
    "looked-up-before-compared": _fault(
        "The cache is looked up before the epoch is compared.",
        (
            Cache,
            "get",
            "    self._memory.require()\n    found = self.find(key)\n",
            "    found = self.find(key)\n    self._memory.require()\n",
        ),
    ),
    "epoch-not-compared": _fault(
        "A worker looks at its lease only, not at the epoch of its host.",
        (Memory, "require", "self.words[EPOCH] > self.epoch or ", ""),
    ),
    "lease-not-looked-at": _fault(
        "A worker compares the epoch of its host only, and does not look at its lease.",
        (Memory, "require", " or steady_seconds() >= self.ends", ""),
    ),
    "node-removed-at-once": _fault(
        "A silent node is removed while its lease lives.",
        (Nodes, "beat", "silent > _LEASES_UNTIL_FORGOTTEN * self.lease_seconds", "True"),
        (Nodes, "beat", "update(tables.nodes).where(it).values(leaving=1)", "delete(tables.nodes).where(it)"),
    ),
    "lease-without-a-row": _fault(
        "A read gives a lease also where the host is not among the nodes.",
        (Nodes, "note", "not mine.leaving", "True"),
        (Memory, "renew", "    if not present:\n", "    if not present and self.epoch == 0:\n"),
    ),
    "nodes-seen-before-the-lock": _fault(
        "Whether there are other nodes is looked up by the statement that waits for the lock (found by this).",
        (
            Change,
            "locked_head",
            "    others = cursor_of(self.connection)\n",
            "    def _locked_head_and_others(): pass\n"
            "    rows = self._statements.made(_locked_head_and_others).rows(self._cursor, {'node_id': node_id})\n"
            "    return self._only_head(rows), bool(rows[0][2]), rows[0][3]\n"
            "    others = cursor_of(self.connection)\n",
        ),
    ),
    "cells-off-after-the-epoch": _fault(
        "The cells are switched off after the epoch has moved.",
        (
            Memory,
            "renew",
            "        if names is None:\n",
            "        self.epoch = max(self.epoch, head.epoch)\n        if names is None:\n",
        ),
    ),
    "own-cells-off-after-the-epoch": _fault(
        "A commit of this process moves its epoch before it switches the cells off.",
        (
            Memory,
            "committed",
            "        self._switch_off(names)\n",
            "        self.epoch = max(self.epoch, head.epoch)\n        self._switch_off(names)\n",
        ),
    ),
    "commits-in-between-passed-over": _fault(
        "A commit of this process moves its epoch though others committed since it last read.",
        (Memory, "committed", "not is_next or any", "before is None or any"),
    ),
    "follower-passed-over": _fault(
        "A commit of this process moves its epoch though a followed table has changed.",
        (Memory, "committed", " or any(not _same(before, head, table) for table in self._followers)", ""),
    ),
    "kept-though-the-epoch-moved": _fault(
        "A value is kept though the epoch has moved since it was read.",
        (Memory, "standing", "epoch == self.epoch", "True"),
    ),
    "since-forgotten": _fault(
        "What is made of something that was read earlier is held against the epoch of now.",
        (Cache, "get", "self._memory.epoch if since is None else since", "self._memory.epoch"),
    ),
    "cells-not-looked-at": _fault(
        "A value is taken to be good without looking at its cells.",
        (Standing, "holds", "if not cell.on", "if False"),
    ),
    "answered-before-the-commit": _fault(
        "The members of a group answer before its commit.",
        (Vault, "change", "committed_at = group.committed.result()", "committed_at = steady_seconds()"),
    ),
    "refused-before-the-commit": _fault(
        "A refusal that rests on other changes of its group is passed on before they are durable.",
        (Vault, "change", "if rests_on_others:", "if False:"),
    ),
    "names-of-joined-changes-forgotten": _fault(
        "Only the first change of a group says what it outdates.",
        (
            Group,
            "keep",
            "self.outdated |= change.outdated",
            "self.outdated |= change.outdated if self.members == 1 else set()",
        ),
    ),
    "refused-change-stays": _fault(
        "A refused change of a group does not go back to its savepoint.",
        (Group, "undo", "change.back_to_savepoint()", "pass"),
    ),
    "counter-not-checked": _fault(
        "Nobody compares the counter of the head with what was seen.",
        (Head, "require_not_before", "self.counter < known", "False"),
    ),
    "counter-not-remembered": _fault(
        "The host does not remember the counter that it saw.",
        (Host, "saw", "value > self.words[at]", "False"),
    ),
    "counter-in-one-word": _fault(
        "The processes of a host write the counter into the same word (found by this).",
        (Host, "saw", "(self._own_word(), seen.word)", "(_COUNTERS.start, seen.word)"),
    ),
    "pruned-rows-passed-over": _fault(
        "Only named cells are switched off where rows of changes were pruned.",
        (Snapshot, "outdated_since", "[row[0] for row in rows] != list(range(seen + 1, now + 1))", "False"),
    ),
    "too-old-passed-over": _fault(
        "Who is behind by more epochs than rows are kept forgets nothing.",
        (Snapshot, "outdated_since", "        return None\n    rows", "        return []\n    rows"),
    ),
    "switches-not-noted": _fault(
        "Nobody notes that the database went on elsewhere, so that lost changes are made up for by others.",
        (Head, "found_on", "timeline in (NOT_KNOWN, newest)", "True"),
    ),
    "no-wait-after-a-failover": _fault(
        "The first change after a failover does not wait for nodes whose rows were lost.",
        (Vault, "_new_group", "time.sleep(", "("),
    ),
    "switches-not-looked-at": _fault(
        "Nobody compares what was seen with where the database went on elsewhere.",
        (Head, "require_not_before", "each.require_kept(self.switches, self.history_from)", "pass"),
    ),
    "row-not-read-again": _fault(
        "A row that was read before the list moved on is taken for one that was put back (found by this).",
        (KeyCache, "_as_revoked", "range(_READS_AT_MOST)", "range(1)"),
    ),
    "distrust-keeps-leases": _fault(
        "A host that does not trust the database goes on renewing its leases.",
        (Memory, "renew", "    if host.distrust is not None:\n", "    if False:\n"),
        (Memory, "_renew_forever", "self._vault.host.distrust is None or self._was_accepted_elsewhere()", "True"),
    ),
}


@contextmanager
def with_fault(name: str | None) -> Iterator[None]:
    """Put a fault into the code, as a context manager."""
    sources: dict[tuple[type, str], str] = {}
    for patch in FAULTS[name].patches if name else ():
        place = patch.owner, patch.name
        if place not in sources:
            sources[place] = textwrap.dedent(inspect.getsource(inspect.getattr_static(*place)))
        sources[place] = patch.applied(sources[place])
    with ExitStack() as held:
        for (owner, function), source in sources.items():
            made: dict[str, Any] = {}
            exec(source, vars(sys.modules[owner.__module__]), made)  # our own source
            held.enter_context(mock.patch.object(owner, function, made[function]))
        yield
