"""One request of the AWS dialect on its way through the operations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from kms.access import decision, key_rules
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.api.aws import specs
from kms.api.aws.faults import Fault
from kms.api.aws.names import INVALID_ARN, Names, invalid_key_id, no_such_alias
from kms.api.aws.shapes import Input
from kms.api.dialect import DialectRequest
from kms.errors import KeyExpired, KeyRevoked, KeyStateConflict, NotFound, PermissionDenied
from kms.keys.ids import is_alias
from kms.keys.model import Key, Origin, ShownState, Usage
from kms.operations import BatchItems, Request
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.manage import UpdateKeyRequest
from kms.operations.keys.regions import SetRegionsRequest
from kms.operations.keys.views import KeyView

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Action:
    """One operation of the AWS dialect: what it takes, what carries it out, and the limit that it counts against."""

    name: str
    input: type[Input]
    function: Callable[..., Mapping[str, Any] | None]
    rate_class: RateClass


ACTIONS: dict[str, Action] = {}
"""Every operation of the AWS dialect by name."""


def action(name: str, input_: type[Input], rate_class: RateClass = RateClass.MANAGE) -> Callable[[F], F]:
    """Declare the decorated function as the operation `name`; it is called with the request and the input."""

    def declare(function: F) -> F:
        ACTIONS[name] = Action(name, input_, function, rate_class)
        return function

    return declare


@dataclass
class AwsRequest(DialectRequest):
    """Who asks, in which region, and the calls that come of it."""

    names: Names
    dialect: ClassVar[str] = "aws"

    def run(self, operation: str, request: Request | BatchItems, **path: str) -> Any:
        """As in every dialect; what the caller may not do is refused in AWS's words. Raises Refusal, Fault."""
        try:
            return super().run(operation, request, **path)
        except PermissionDenied:
            raise self.denied(path.get("key_id")) from None

    def require_no_denial(self, key: Key) -> None:
        """Raise Fault where the key's policy denies this action, which no operation on the key is part of."""
        at = self.service.circumstances(self.call)
        if key_rules.denies(self.call.known_caller, Permission.KEYS_READ, key, at):
            raise self.denied(key.key_id)

    def allows(self, permission: Permission, key: Key) -> bool:
        """Whether the caller may do this with the key."""
        return decision.allows(self.call.known_caller, permission, key, self.service.circumstances(self.call))

    def denied(self, key_id: str | None) -> Fault:
        """The fault of what the caller may not do, with the key of that id or at all."""
        user = self.names.client_arn(self.call.known_caller.client_id)
        wanted = f"kms:{self.call.operation.removeprefix('aws:')}"
        resource = self.names.key_arn(key_id) if key_id is not None else "*"
        return Fault(
            "AccessDeniedException",
            f"User: {user} is not authorized to perform: {wanted} on resource: {resource} "
            f"because no resource-based policy allows the {wanted} action",
            problem="permission-denied",
        )

    def use(self, operation: str, key: Key, request: Request, *, dry_run: bool | None = False) -> Any:
        """As `do`, for a use of `key`. What its state does not allow is refused in AWS's words. Raises Fault."""
        try:
            answer = self.run(operation, request, key_id=key.key_id)
        except (KeyStateConflict, KeyRevoked, KeyExpired) as refusal:
            self.require_no_deletion(key)
            if isinstance(refusal, KeyStateConflict):
                if key.origin is Origin.IMPORTED and self.view(key).state is not ShownState.SUSPENDED:
                    raise self.pending_import(key) from None
                raise self.disabled(key) from None
            raise
        if dry_run:
            raise would_succeed()
        return answer

    def key(self, given: str) -> Key:
        """The key of an id, an alias name or an ARN, to use it.

        Raises Fault, the same for one that the caller may not see and, as AWS has it, for what is no ARN.
        """
        try:
            return self.key_to_show(given)
        except Fault as fault:
            raise invalid_key_id(given) if fault.code == INVALID_ARN else fault from None

    def key_to_show(self, given: str) -> Key:
        """As `key`, for operations that tell what is no ARN from what is not there."""
        return self.names.key(given, self.call)

    def key_without_alias(self, given: str) -> Key:
        """As `key`, for operations that take no alias."""
        return self.names.key_without_alias(given, self.call)

    def require_no_deletion(self, key: Key) -> None:
        """Raise Fault for a key that awaits its deletion."""
        if key.deletion_at is not None:
            arn = self.names.key_arn(key.key_id)
            raise Fault("KMSInvalidStateException", f"{arn} is pending deletion.", problem="key-state")

    def require_enabled(self, key: Key, view: KeyView | None = None) -> None:
        """Raise Fault for a key that is disabled, waits for its material, or awaits its deletion.

        The `view` is given where it is more than DescribeKey that lets the caller know it.
        """
        self.require_no_deletion(key)
        found = view or self.view(key)
        if found.pending_import:
            raise self.pending_import(key)
        if found.state is ShownState.SUSPENDED:
            raise self.disabled(key)

    def disabled(self, key: Key) -> Fault:
        """The fault of a key that is disabled."""
        return Fault("DisabledException", f"{self.names.key_arn(key.key_id)} is disabled.", problem="key-state")

    def view(self, key: Key) -> KeyView:
        """How a key is shown."""
        view: KeyView = self.run("get_key", EmptyRequest(), key_id=key.key_id)
        return view

    def view_with_material(self, key: Key) -> KeyView:
        """How a key is shown. Raises Fault for one that waits for its material."""
        view = self.view(key)
        if view.pending_import:
            raise self.pending_import(key)
        return view

    def pending_import(self, key: Key) -> Fault:
        """The fault of a key whose material is not here."""
        arn = self.names.key_arn(key.key_id)
        return Fault("KMSInvalidStateException", f"{arn} is pending import.", problem="key-state")

    def material(self, key: Key, version: int, member: str = "KeyMaterialId") -> dict[str, str]:
        """The member that names which material was used, for symmetric keys."""
        return {member: self.names.material_id(key, version)} if specs.spec_of(key.type) == specs.SYMMETRIC else {}

    def require_primary(self, key: Key) -> None:
        """Raise Fault for what is a replica in this region, where it can be used but not changed."""
        if self.names.primary_region(key.region) != self.names.region:
            raise self.not_primary(key)

    def not_primary(self, key: Key) -> Fault:
        """The fault of what is no multi-Region key, or a replica of one."""
        arn = self.names.key_arn(key.key_id)
        return Fault("UnsupportedOperationException", f"{arn} is not a multi-region primary key.")

    def wrong_origin(self, key: Key) -> Fault:
        """The fault of a key that is generated here where one with imported material is needed, or the reverse."""
        origin = "EXTERNAL" if key.origin is Origin.IMPORTED else "AWS_KMS"
        arn = self.names.key_arn(key.key_id)
        return Fault(
            "UnsupportedOperationException", f"{arn} origin is {origin} which is not valid for this operation."
        )

    def describe(self, key: Key, **given: Any) -> None:
        """Change the description or the labels of a key in this region."""
        if self.names.primary_region(key.region) == self.names.region:
            self.run("update_key", UpdateKeyRequest(**given), key_id=key.key_id)
        else:
            self.run("set_regions", SetRegionsRequest(describe=self.names.region, **given), key_id=key.key_id)

    def in_region(self, region: str) -> AwsRequest:
        """The same request as it would be in another region."""
        return replace(self, names=replace(self.names, region=region))

    def require_usage(self, key: Key, usage: Usage, operation: str) -> None:
        """Raise Fault for a key that was not made for what `operation` does."""
        if usage not in key.usages:
            arn = self.names.key_arn(key.key_id)
            raise Fault(
                "InvalidKeyUsageException",
                f"{arn} key usage is {specs.usage_of(key)} which is not valid for {operation}.",
                problem="operation-not-supported",
            )

    def incompatible(self, key: Key, algorithm: str) -> Fault:
        """The fault of an algorithm that `key` does not have."""
        return Fault(
            "InvalidKeyUsageException",
            f"Algorithm {algorithm} is incompatible with key spec {specs.spec_of(key.type)}.",
            problem="operation-not-supported",
        )

    def require_marker(self, marker: str | None, *, numeric: bool = False) -> None:
        """Raise Fault for a marker that no list gave."""
        if marker is not None and not (_NUMBER.fullmatch(marker) if numeric else is_alias(marker)):
            raise Fault("InvalidMarkerException", "The marker is not one that a list gave.")

    @contextmanager
    def alias_not_found(self, alias: str) -> Iterator[None]:
        """Say in AWS's words that there is no such alias."""
        try:
            yield
        except NotFound:
            raise no_such_alias(self.names.alias_arn(alias)) from None


def would_succeed() -> Fault:
    """The fault that tells a dry run that everything would have been permitted."""
    return Fault(
        "DryRunOperationException",
        "The request would have succeeded, but the DryRun option is set.",
        problem="dry-run",
    )


def refuse_recipient(recipient: dict[str, Any] | None) -> None:
    """Raise Fault for an answer that shall go to an enclave."""
    if recipient is not None:
        raise Fault("UnsupportedOperationException", "There are no enclaves here that could attest themselves.")


def seconds(moment: datetime) -> float:
    """A time as the JSON protocols of AWS have it: seconds since 1970."""
    return moment.timestamp()
