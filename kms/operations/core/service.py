"""The service as a whole: `Service.open` puts its parts together, and every operation gets it as an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from socket import gethostname
from typing import Protocol, TypeVar

import msgspec

from kms.access import jwks_fetch
from kms.access.authentication import Authenticator, Credentials
from kms.access.certificates import ClientRoots
from kms.access.circumstances import Circumstances
from kms.access.model import Caller
from kms.access.passkey_logins import PasskeyLogins
from kms.access.programs import Programs
from kms.access.ratelimit import RateLimits
from kms.access.sessions import Lifetimes
from kms.access.webauthn import RelyingParty
from kms.approvals.execution import CarryingOut
from kms.approvals.model import ApprovalRule
from kms.approvals.rules import RulesInForce
from kms.audit.disclosure import Disclosure
from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.folding import Folder
from kms.audit.keys import hash_key, spool_key
from kms.audit.log_state import RememberedLogState
from kms.audit.receipts import Receipts
from kms.audit.spool import Spool
from kms.audit.tree import leaf_hash
from kms.audit.witnesses import witness_keys_of
from kms.clock import Clock, utc_now
from kms.config import Settings
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.errors import AuthenticationFailed, Refusal, Unavailable
from kms.key_cache import KeyCache
from kms.keys.cryptoperiod import Cryptoperiods
from kms.last_uses import LastUses
from kms.message_quota import MessageQuota
from kms.metrics import Metrics
from kms.notices.deliver import Deliveries
from kms.notices.happenings import Happenings
from kms.notices.targets import targets_of
from kms.operations.core.asking import asking
from kms.operations.core.bootstrap import enrol_first_admin
from kms.operations.core.key_pool import KeyPool
from kms.operations.core.new_seal import settle_seal
from kms.revocation.in_force import RevocationsInForce
from kms.revocation.leaves import KnownLeaves
from kms.revocation.published import Publisher
from kms.vault.change import Change
from kms.vault.memory import Memory
from kms.vault.opening import open_vault
from kms.vault.store import Vault
from kms.vault.unsealed import Unsealed

T = TypeVar("T")
A = TypeVar("A")


class Call(msgspec.Struct):
    """One request while it is carried out: who asks for what, and what its audit entry will say.

    `key_id` and `target` are set only when the key or other object was found, so that invented names stay out of
    the log. `at` is the time at which the operation began, after its body was read. `action` is the AWS name of the
    operation in requests of the AWS dialect, else empty. `items` is the number of items of a batch, `refused` how
    many of them were refused, `versions` which they used where that are several. `credential` and `subject` say what
    authenticated the caller, where that is to be logged, and `associated_data` is the hash that is to be logged.
    `recorded` says that the audit entry is written, and `leaf` is its leaf hash; `abandoned` that nothing had to be
    changed. `dialect` is that of the request: `rest`, `aws`, `vault` or `console`. `approval` is the id of the
    approval that it is about, and `carrying_out` is there where the last approval has the call carried out. `rules`
    are the rules of approvals that were looked at.
    """

    operation: str
    source: str
    request_id: str
    caller: Caller | None = None
    at: datetime | None = None
    action: str = ""
    key_id: str | None = None
    version: int | None = None
    versions: tuple[int, ...] | None = None
    target: str | None = None
    items: int | None = None
    refused: int | None = None
    recovery: bool | None = None
    credential: str | None = None
    subject: str | None = None
    associated_data: str | None = None
    recorded: bool = False
    abandoned: bool = False
    leaf: bytes | None = None
    dialect: str = "rest"
    approval: str | None = None
    carrying_out: CarryingOut | None = None
    rules: tuple[ApprovalRule, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether at least one item of a batch succeeded; always true for a single request. For use afterwards."""
        return self.items is None or self.refused != self.items

    @property
    def began(self) -> datetime:
        """`at`, for code that runs after it is set, as every operation does."""
        assert self.at is not None
        return self.at

    @property
    def known_caller(self) -> Caller:
        """The caller of an operation that is not public. Raises AuthenticationFailed."""
        if self.caller is None:
            raise AuthenticationFailed("This operation needs credentials.")
        return self.caller


class _Refused(Protocol):
    @property
    def problem(self) -> str:
        """The name of the problem type (RFC 9457), such as `key-revoked`."""


class Service:
    """Everything that operations need, for one worker."""

    def __init__(self, settings: Settings, vault: Vault, clock: Clock = utc_now) -> None:
        self.settings = settings
        self.vault = vault
        self.clock = clock
        self.cryptoperiods = Cryptoperiods(
            settings.cryptoperiod, settings.cryptoperiods, settings.process_period, settings.rotation_period
        )
        self.memory = Memory(vault)
        self.revocation_leaves = KnownLeaves(self.memory)  # before the revocations, so that it is never behind them
        self.revocations = RevocationsInForce(self.memory)
        self.key_cache = KeyCache(vault, self.memory, self.revocations, settings.aws_account_id)
        self.approval_rules = RulesInForce(vault, self.memory, asking)
        lifetimes = Lifetimes(settings.token_lifetime, settings.metrics_token_lifetime)
        self.metrics = Metrics(settings.run_dir / "metrics")
        self.notice_targets = targets_of(settings)
        self.deliveries = Deliveries(
            vault, clock, self.notice_targets, settings.aws_account_id, self.metrics.count_notice
        )
        self.happenings = Happenings(vault, clock, self.deliveries, gethostname())
        vault.distrusted = self.happenings.distrusted
        self.authenticator = Authenticator(vault, self.memory, clock, lifetimes, self.happenings.locked_out)
        hosts = jwks_fetch.named_hosts(settings.jwks_hosts)
        self.fetch_jwks = partial(jwks_fetch.fetch, hosts=hosts, ca=settings.jwks_ca)
        roots = ClientRoots(settings.client_ca).in_force if settings.client_ca is not None else tuple
        self.programs = Programs(
            vault, self.memory, clock, settings.audiences, self.fetch_jwks, roots, self.happenings.locked_out
        )
        party = RelyingParty(settings.relying_party_id, settings.origin)
        self.passkeys = PasskeyLogins(vault, self.memory, clock, party, self.happenings.locked_out)
        self.message_quota = MessageQuota(vault, clock)
        self.last_uses = LastUses(vault, clock)
        self.key_pool = KeyPool()
        self.publisher = Publisher(vault, self.memory, self.revocations, self.revocation_leaves)
        self.rate_limits = RateLimits(settings)
        vault.observe = self.metrics.observe_database
        with vault.read() as snapshot:
            codes, hashes = spool_key(snapshot), hash_key(snapshot)
        self.disclosure = Disclosure(
            settings.audit_source,
            hashes_associated_data=settings.audit_associated_data == "hashed",
            key=hashes,
        )
        self.spool = Spool(
            settings.spool_dir,
            codes,
            fsync=settings.audit_fsync == "always",
            lost=self.metrics.spools_lost.inc,
            stalled=self.happenings.stalled,
        )
        self.audit_state = RememberedLogState(vault, settings.spool_dir)
        self.receipts = Receipts(
            vault, settings.audit_log_dir, settings.spool_dir, settings.audit_index, witness_keys_of(settings)
        )
        self.folder = Folder(vault, settings, clock)
        self._is_closed = False
        self.memory.start()

    @classmethod
    def open(cls, settings: Settings, clock: Clock = utc_now, unsealed: Unsealed | None = None) -> Service:
        """Open the vault, make the first administrator where there is no client yet, and wire everything.

        Raises StartError.
        """
        vault = open_vault(settings, unsealed)
        settle_seal(vault, clock)
        enrol_first_admin(vault, settings, clock)
        return cls(settings, vault, clock)

    def authenticate(self, presented: Credentials, source: str) -> Caller:
        """As `Authenticator.authenticate`; the outcome is also counted in the metrics."""
        return self.counted(lambda: self.authenticator.authenticate(presented, source))

    def counted(self, prove: Callable[[], Caller]) -> Caller:
        """Call `prove`, count its outcome among the log-ins in the metrics, and return or raise what it does."""
        outcome = SUCCESS
        try:
            return prove()
        except Refusal as refusal:
            outcome = refusal.problem
            raise
        finally:
            self.metrics.count_login(outcome)

    def circumstances(self, call: Call) -> Circumstances:
        """What access decisions look at in a request beside its caller: address, time, action and account."""
        return Circumstances(
            call.source, call.at or self.clock(), call.action or call.operation, self.settings.aws_account_id
        )

    def generated(self, kind: KeyType) -> KeyMaterial:
        """Fresh material of `kind`. May take seconds, so it is called outside of transactions."""
        return KeyMaterial.of(kind, self.key_pool.generate(kind))

    def write_at_the_end(self) -> None:
        """Save what is only in memory: the last uses of keys, and entries of an audit file that was just removed."""
        if self._is_closed:
            return
        self.last_uses.write_at_the_end()
        with suppress(Unavailable):
            self.spool.require()

    def close(self) -> None:
        """Stop answering and let go of the database."""
        self.write_at_the_end()
        self._is_closed = True
        self.deliveries.stop()
        self.folder.close()
        self.memory.stop()
        self.key_pool.close()
        self.spool.close()
        self.vault.close()

    @contextmanager
    def change(self, call: Call) -> Iterator[Change]:
        """Open a change of the vault, as a context manager. The audit entry of `call` is committed together with it.

        Raises AuthenticationFailed if the caller's session or client ended while the change waited for its turn.
        """
        with self.vault.change() as change:
            self._require_still(change, call)
            yield change
            if not call.abandoned or call.carrying_out is not None:  # what was approved is in the log whatever it did
                self.record_in(change, call)
        call.recorded = True
        self._note_settled(call)

    def change_each(
        self, call: Call, items: Iterable[T | Refusal], act: Callable[[Change, Call, T], A]
    ) -> list[A | Refusal]:
        """Call `act` for each item, all in one transaction, and return their answers or refusals in the same order.

        A refused item changes nothing and does not affect the others; each item that succeeds gets an audit entry of
        its own. Raises Unavailable if nothing could be carried out.
        """
        results: list[A | Refusal] = []
        with self.vault.change() as change:
            self._require_still(change, call)
            for item in items:
                if isinstance(item, Refusal):
                    results.append(item)
                    continue
                own = msgspec.structs.replace(call, key_id=None, version=None, target=None)
                try:
                    with change.part():
                        results.append(act(change, own, item))
                        self.record_in(change, own)
                except Unavailable:
                    raise
                except Refusal as refusal:
                    results.append(refusal)
        self._note_settled(call)
        return results

    def _require_still(self, change: Change, call: Call) -> None:
        """Ask again whether the caller still may: a change may have waited for its turn, or for a key to be made.

        What is carried out because it was approved is settled in the same change.
        """
        if call.caller is not None:
            call.caller = self.authenticator.still(change, call.caller, self.clock())
        if call.carrying_out is not None:
            call.carrying_out.settle_in(change, self.clock())
        elif call.caller is not None:
            self.approval_rules.require_none_new(change, call.operation, call.rules)

    @staticmethod
    def _note_settled(call: Call) -> None:
        if call.carrying_out is not None:
            call.carrying_out.is_settled = True

    def record_in(self, change: Change, call: Call, outcome: str = SUCCESS) -> None:
        """Write the audit entry of a call that succeeded, as a part of the change that carries it out."""
        line = self._entry(call, outcome, self.clock())
        call.leaf = leaf_hash(line)
        change.record(line.decode())

    def record(self, call: Call, refusal: _Refused | None = None) -> None:
        """Write the audit entry of a call that changed nothing, unless it is `recorded`. Raises Unavailable."""
        if not call.recorded:
            outcome = SUCCESS if refusal is None else refusal.problem
            line = self._entry(call, outcome, call.at or self.clock())
            call.leaf = leaf_hash(line)
            self.spool.append(line, call.leaf)
            call.recorded = True

    def _entry(self, call: Call, outcome: str, at: datetime) -> bytes:
        caller = call.caller
        credential = call.credential
        if credential is None and caller is not None and caller.access_key_id is not None:
            credential = caller.credential
        return AuditEntry(
            1,
            timestamp(at),
            call.request_id,
            call.operation,
            outcome,
            self.disclosure.source(call.source),
            call.caller.client_id if call.caller is not None else None,
            call.key_id,
            call.version,
            call.approval if call.target is None else call.target,
            call.items,
            call.refused,
            call.recovery,
            credential,
            call.subject,
            caller.token.session_id if caller is not None and caller.token is not None else None,
            call.approval,
            call.associated_data,
            call.versions,
        ).line()
