"""The head: one authenticated row that says what is true now.

Each row of the vault carries its own code, so nobody can alter it. But an old copy of a row carries its code too. So
the head holds, for every table, a keyed multiset hash of its rows (MSet-Add-Hash of Clarke et al., ASIACRYPT 2003:
the sum of `HMAC(row)` modulo 2^256, and how many rows there are), and a counter that every commit moves. It is
written once for each commit, as one value: no part of it can be put back alone. Whoever remembers the counter notices
when the whole is put back (see `memory` and `host`).

It is sealed because the sums of known rows would let an attacker choose others with the same sum; and by AES-SIV
(RFC 5297) because there may be more commits than random nonces of AES-GCM are good for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Table

from kms.errors import IntegrityFailure, Unavailable
from kms.vault.history import FIRST_BRANCH, FIRST_TIMELINE, MOST_SWITCHES, NOT_KNOWN, Seen, Switch
from kms.vault.integrity import canonical
from kms.vault.keyset import FIRST
from kms.vault.sealing import DerivedKeys, SealBroken, UnknownRootKey, number_of_sealed

ACCEPTED_BEYOND = 1 << 32
"""By so much an operator's acceptance moves the counter: more than any node can have seen, or commits can come to."""
_MODULUS = 1 << 256
_SUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The multiset hash of a table: how many rows it has, and the sum of their terms modulo 2^256."""

    count: int = 0
    total: int = 0

    def plus(self, count: int, total: int) -> TableDigest:
        """With `count` rows more (or less), whose terms add up to `total`."""
        return TableDigest(self.count + count, (self.total + total) % _MODULUS)


@dataclass(frozen=True)
class Head:
    """The head. `counter` is the number of commits, `epoch` the number of those that outdated something.

    `last_entry` is the number of the newest audit entry in the outbox. The numbers up to it have no gaps, except for
    the `lost_entries` that were missing, or passed over, when an operator accepted the database or restored it. No
    row is under a root key before `oldest_root_key`. `switches` are the newest failovers of the database that changes
    have found, oldest first; a database that always was on the first timeline, or tells none, has none. They are all
    that there were since the change `history_from`; it is None where the next change is to begin a history.
    """

    counter: int
    epoch: int
    last_entry: int
    digests: Mapping[str, TableDigest] = field(default_factory=dict)
    lost_entries: int = 0
    oldest_root_key: int = FIRST
    switches: tuple[Switch, ...] = ()
    history_from: int | None = None

    def numbered_beyond(self) -> Head:
        """This head where the next audit entry gets a number that no entry had, also none that is lost.

        The code of an entry is good for its number for ever: another entry with it could take the place of one.
        """
        return replace(
            self, last_entry=self.last_entry + ACCEPTED_BEYOND, lost_entries=self.lost_entries + ACCEPTED_BEYOND
        )

    @property
    def seen(self) -> Seen:
        """What whoever has seen this head remembers of it."""
        return Seen(self.counter, self.switches[-1].branch if self.switches else FIRST_BRANCH)

    def found_on(self, timeline: int) -> Head:
        """This head as a change goes on from it that finds the database on `timeline`."""
        begins = self.counter if self.history_from is None else self.history_from
        newest = self.switches[-1].timeline if self.switches else FIRST_TIMELINE
        if timeline in (NOT_KNOWN, newest):
            return self if begins == self.history_from else replace(self, history_from=begins)
        switches = (*self.switches, Switch.to(timeline, self.counter))
        if len(switches) > MOST_SWITCHES:
            switches = switches[-MOST_SWITCHES:]
            begins = max(begins, switches[0].counter)
        return replace(self, switches=switches, history_from=begins)

    def digests_with(self, terms: Mapping[str, tuple[int, int]]) -> dict[str, TableDigest]:
        """The digests once `terms` are counted in: for each table how many rows came, and the sum of their terms."""
        digests = dict(self.digests)
        for name, (count, total) in terms.items():
            digests[name] = digests.get(name, TableDigest()).plus(count, total)
        return digests

    def digest(self, table: Table) -> TableDigest | None:
        """The digest of `table`; None if the head has none, and then the table counts as altered."""
        return self.digests.get(str(table.name))

    def require_not_before(self, known: int, *seen: Seen | None) -> None:
        """Raise IntegrityFailure unless this head goes on from the change `known` and from each head that was `seen`.

        Of what was seen its counter must not be above this head's, and its branch be in this head's past.
        """
        known = max(known, *(each.counter for each in seen if each is not None), 0)
        if self.counter < known:
            raise IntegrityFailure(
                f"The database is older than what was seen of it: it is at change {self.counter} of {known}."
            )
        for each in seen:
            if each is not None:
                each.require_kept(self.switches, self.history_from)

    def sealed(self, keys: DerivedKeys) -> bytes:
        """For the table `head`: MessagePack of the fields, sealed."""
        digests = {name: (each.count, each.total.to_bytes(_SUM_BYTES)) for name, each in self.digests.items()}
        fields: tuple[Any, ...] = (self.counter, self.epoch, self.last_entry, digests, self.lost_entries)
        if self.oldest_root_key != FIRST or self.switches or self.history_from is not None:
            fields = (*fields, self.oldest_root_key, self.switches, self.history_from)
        return keys.seal_head(msgspec.msgpack.encode(fields))

    @staticmethod
    def unsealed(keys: DerivedKeys, sealed: bytes) -> Head:
        """The head in `sealed`. Root keys that it says are not in use any more are forgotten.

        Raises IntegrityFailure, and Unavailable where this process has not got the root key.
        """
        try:
            fields = _decoder.decode(keys.open_head(sealed))
        except UnknownRootKey:
            raise Unavailable(
                "The root key was changed while this process did not run. Restart this node.", retry_after=5
            ) from None
        except SealBroken:
            raise IntegrityFailure("The head of the vault was altered outside the service.") from None
        read = {name: TableDigest(count, int.from_bytes(total)) for name, (count, total) in fields.digests.items()}
        keys.retire_before(fields.oldest_root_key)
        return Head(
            fields.counter,
            fields.epoch,
            fields.last_entry,
            read,
            fields.lost_entries,
            fields.oldest_root_key,
            fields.switches,
            fields.history_from,
        )


def require_not_retired(sealed: bytes, oldest: int) -> None:
    """Raise IntegrityFailure if a head is under a root key before `oldest`, the oldest in use before it was read."""
    try:
        number = number_of_sealed(sealed)
    except SealBroken:
        return  # and `Head.unsealed` says so
    if number < oldest:
        raise IntegrityFailure(
            f"The head of the vault is an older one, under root key {number}, which is not in use any more."
        )


class _Fields(msgspec.Struct, array_like=True):
    counter: int
    epoch: int
    last_entry: int
    digests: dict[str, tuple[int, bytes]]
    lost_entries: int
    oldest_root_key: int = FIRST
    switches: tuple[Switch, ...] = ()
    history_from: int | None = None


_decoder = msgspec.msgpack.Decoder(_Fields)


def digest_of(keys: DerivedKeys, table: Table, rows: Iterable[Sequence[Any]]) -> TableDigest:
    """The digest that `rows`, all of `table`, their values in the order of its columns, give."""
    count = total = 0
    for row in rows:
        count += 1
        total += keys.digest_term(canonical(table, row))
    return TableDigest(count, total % _MODULUS)
