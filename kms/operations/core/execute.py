"""Runs one operation: checks the caller again, decodes the request, calls the function, writes the audit entry.

The function itself checks what the caller may do with a key. Here, where all dialects meet, a call that needs the
approval of others is stopped before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

from kms.access import policy
from kms.access.ratelimit import identity
from kms.errors import InternalError, KeyRevoked, Refusal, Unavailable
from kms.operations.core.approving import require_approval
from kms.operations.core.declare import BatchItems, BatchResults, Operation, Request
from kms.operations.core.key_access import authorized_key_cached
from kms.operations.core.service import Call, Service
from kms.vault import sentences


def execute_operation(
    service: Service,
    operation: Operation,
    call: Call,
    read_request: Callable[[], Request | BatchItems],
    path: Mapping[str, str],
) -> Any:
    """Carry out `operation`, write its audit entry, and only then return its answer.

    `read_request` decodes and validates the body and may raise a Refusal. Raises Refusal, and ApprovalPending where a
    rule covers the call. Refused requests get an audit entry too; if that cannot be written, Unavailable is raised
    instead.
    """
    try:
        call.at = at = service.clock()
        if not operation.is_public:
            call.caller = service.authenticator.revalidate(
                call.known_caller, at
            )  # whose body may have taken its time
        if operation.permission is not None and operation.checked_upfront:
            policy.require(call.known_caller, operation.permission)
        request = read_request()
        if not operation.is_public and (rules := service.approval_rules.may_cover(operation.name)):
            call.rules = rules
            if call.carrying_out is None:
                require_approval(service, operation, call, request, path)
        if service.disclosure.hashes_associated_data and operation.permission in policy.USES:
            call.associated_data = _hashed_associated_data(service, request)
        if isinstance(request, BatchItems):
            answer: Any = _each(service, operation, call, request, path)
        else:
            answer = operation.function(service, call, request, **path)
    except Refusal as refusal:
        if isinstance(refusal, KeyRevoked):
            _tell_of_revoked(service, operation, call)
        if call.recorded and isinstance(refusal, Unavailable):  # by what is read after the change, to be shown
            raise Unavailable(sentences.CHANGED, retry_after=1) from None
        service.record(call, refusal)
        raise
    except Exception:
        service.record(call, InternalError(""))
        raise
    service.record(call)
    if call.refused and any(isinstance(each, KeyRevoked) for each in answer.items):
        _tell_of_revoked(service, operation, call)
    if call.key_id is not None and operation.permission in policy.USES and call.succeeded:
        service.last_uses.note(call.key_id, (at, operation.name, call.request_id))
    return answer


def _hashed_associated_data(service: Service, request: Request | BatchItems) -> str | None:
    """The hash of the request's associated data; for a batch only where all readable items have the same."""
    items = request.items if isinstance(request, BatchItems) else [request]
    given = {getattr(item, "associated_data", b"") for item in items if not isinstance(item, Refusal)}
    return service.disclosure.associated_data(given.pop()) if len(given) == 1 else None


def _tell_of_revoked(service: Service, operation: Operation, call: Call) -> None:
    """Somebody wanted to use a key that was revoked: perhaps for compromise, of which its owner may want to know."""
    if call.key_id is not None and operation.permission in policy.USES:
        client_id = call.known_caller.client_id
        version = call.version if call.items is None else None  # of a batch those that were used, not those refused
        service.happenings.refused_as_revoked(call.key_id, version, client_id, operation.name)


def _each(
    service: Service, operation: Operation, call: Call, request: BatchItems, path: Mapping[str, str]
) -> BatchResults:
    """Carry out each item. A refusal that does not depend on the item (not `item_scoped`) refuses the whole batch."""
    if operation.slow and len(request.items) > 1:  # the request itself was counted already
        who = identity(call.known_caller, call.source)
        service.rate_limits.hit(operation.rate_class, who, cost=len(request.items) - 1)
    results: list[Any] = []
    used: set[int | None] = set()
    if operation.batch_function is not None:
        for begin in range(0, len(request.items), operation.at_once):
            _look_again(service, call)
            results += operation.batch_function(
                service, call, request.items[begin : begin + operation.at_once], **path
            )
        if "key_id" in path:
            used = {each.version for each in results if not isinstance(each, Refusal)}
        return _counted(call, results, used)
    if "key_id" in path and operation.permission is not None:  # also where no item can be read
        authorized_key_cached(service, call, operation.permission, path["key_id"], request.items)
    for item in request.items:
        if isinstance(item, Refusal):
            results.append(item)
            continue
        call.recorded = False  # the audit entry of an earlier item does not stand for this one
        _look_again(service, call)
        try:
            results.append(operation.function(service, call, item, **path))
            used.add(call.version)
        except Refusal as refusal:
            if not refusal.item_scoped:
                raise
            results.append(refusal)
    return _counted(call, results, used)


def _look_again(service: Service, call: Call) -> None:
    """Check between the items of a batch that the caller is still authenticated. Raises AuthenticationFailed."""
    call.at = service.clock()
    call.caller = service.authenticator.revalidate(call.known_caller, call.at)


def _counted(call: Call, results: list[Any], used: Set[int | None]) -> BatchResults:
    """The answer of a batch. How many items it had, and the versions that they `used`, are noted in `call`."""
    versions = sorted(each for each in used if each is not None)
    call.version = versions[0] if len(versions) == 1 else None
    call.versions = tuple(versions) if len(versions) > 1 else None
    call.items, call.recorded = len(results), False
    call.refused = sum(isinstance(result, Refusal) for result in results)
    return BatchResults(results)
