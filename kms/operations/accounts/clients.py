"""Clients over REST: for administrators, except that every client can rotate its own secret."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import clients, policy, step_up
from kms.access.model import Client, ClientStatus, Role
from kms.access.policy import Permission
from kms.approvals.deciding import end_calls_of
from kms.approvals.quorum import keeping_approvers
from kms.keys.ids import ClientId
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, Limit
from kms.vault import tables
from kms.vault.change import Change

T = TypeVar("T")


class CreateClientRequest(Request):
    """`client_id` must never have been used before, not even by a deleted client; `roles` are one or more."""

    client_id: ClientId
    roles: Annotated[set[Role], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: {Role.USER})


class ListClientsRequest(Request):
    """A page of clients in the order of their ids."""

    limit: Limit = 100
    cursor: Cursor | None = None


class RotateSecretRequest(Request):
    """`passphrase` is a new secret that a person has chosen; without it the service makes one of 256 random bits."""

    passphrase: Annotated[str, msgspec.Meta(min_length=12, max_length=256)] | None = None


class EnrolmentAnswer(Answer):
    """The credentials of a new client. They are shown only in this answer."""

    client_id: str
    roles: list[Role]
    client_secret: str
    totp_secret: str
    totp_uri: str
    recovery_codes: list[str]


class ClientView(Answer):
    """A client without its credentials."""

    client_id: str
    roles: list[Role]
    status: ClientStatus
    created_at: datetime


class ClientList(Answer):
    """A page of clients."""

    items: list[ClientView]
    next_cursor: str | None


class SecretAnswer(Answer):
    """The new secret, shown only in this answer; left out if the request gave a passphrase."""

    client_id: str
    client_secret: str | UnsetType = UNSET


class SecondFactorAnswer(Answer):
    """A new TOTP secret with new recovery codes. They are shown only in this answer."""

    client_id: str
    totp_secret: str
    totp_uri: str
    recovery_codes: list[str]


@operation(
    "POST",
    "/api/v1/clients",
    permission=Permission.CLIENTS_MANAGE,
    request=CreateClientRequest,
    status=201,
    checked_upfront=True,
)
def create_client(service: Service, call: Call, request: CreateClientRequest) -> EnrolmentAnswer:
    """Make a client; its secret, TOTP secret and recovery codes are in the answer and nowhere else."""
    with service.change(call) as change:
        made = clients.create(change, request.client_id, frozenset(request.roles), service.clock())
        call.target = made.client.client_id
    return EnrolmentAnswer(
        client_id=made.client.client_id,
        roles=sorted(made.client.roles),
        client_secret=made.client_secret,
        totp_secret=made.totp_secret,
        totp_uri=made.totp_uri,
        recovery_codes=made.recovery_codes,
    )


@operation(
    "GET", "/api/v1/clients", permission=Permission.CLIENTS_READ, request=ListClientsRequest, checked_upfront=True
)
def list_clients(service: Service, call: Call, request: ListClientsRequest) -> ClientList:
    """List clients."""
    column = tables.clients.c
    criteria = [column.status != ClientStatus.DELETED]
    if request.cursor is not None:
        criteria.append(column.client_id > request.cursor)
    with service.vault.read() as snapshot:
        found = snapshot.select(Client, *criteria, order_by=column.client_id, limit=request.limit + 1)
    page = found[: request.limit]
    return ClientList(
        items=[_view(client) for client in page],
        next_cursor=page[-1].client_id if len(found) > len(page) else None,
    )


@operation("GET", "/api/v1/clients/<client_id>", permission=Permission.CLIENTS_READ, checked_upfront=True)
def get_client(service: Service, call: Call, request: EmptyRequest, client_id: str) -> ClientView:
    """Show a client."""
    with service.vault.read() as snapshot:
        client = clients.get(snapshot, client_id)
    call.target = client.client_id
    return _view(client)


@operation("POST", "/api/v1/clients/<client_id>/disable", permission=Permission.CLIENTS_MANAGE, checked_upfront=True)
def disable_client(service: Service, call: Call, request: EmptyRequest, client_id: str) -> ClientView:
    """Disable a client: end its sessions and refuse all its requests until it is enabled again."""
    return _change_client(service, call, client_id, ClientStatus.DISABLED)


@operation("POST", "/api/v1/clients/<client_id>/enable", permission=Permission.CLIENTS_MANAGE, checked_upfront=True)
def enable_client(service: Service, call: Call, request: EmptyRequest, client_id: str) -> ClientView:
    """Enable a disabled client again."""
    return _change_client(service, call, client_id, ClientStatus.ENABLED)


@operation("DELETE", "/api/v1/clients/<client_id>", permission=Permission.CLIENTS_MANAGE, checked_upfront=True)
def delete_client(service: Service, call: Call, request: EmptyRequest, client_id: str) -> ClientView:
    """Delete a client with its credentials and grants. Its keys stay, and its id can never be used again.

    Refused where too few clients would be left who can approve what an approval rule covers.
    """
    return _change_client(service, call, client_id, ClientStatus.DELETED)


@operation(
    "POST", "/api/v1/clients/<client_id>/reset-totp", permission=Permission.CLIENTS_MANAGE, checked_upfront=True
)
def reset_client_totp(service: Service, call: Call, request: EmptyRequest, client_id: str) -> SecondFactorAnswer:
    """Give a client a new TOTP secret and new recovery codes; its sessions end."""
    step_up.require_to_let_in(call.known_caller, client_id, service.clock())
    made = _with_client(service, call, client_id, clients.reset_second_factor)
    return SecondFactorAnswer(
        client_id=client_id,
        totp_secret=made.totp_secret,
        totp_uri=made.totp_uri,
        recovery_codes=made.recovery_codes,
    )


@operation(
    "POST",
    "/api/v1/clients/<client_id>/rotate-secret",
    permission=Permission.SECRETS_ROTATE,
    request=RotateSecretRequest,
    slow=True,
)
def rotate_client_secret(service: Service, call: Call, request: RotateSecretRequest, client_id: str) -> SecretAnswer:
    """Give a client a new secret, or the passphrase it chose; its sessions end."""
    policy.require(call.known_caller, Permission.SECRETS_ROTATE, client_id)
    secret = _with_client(
        service,
        call,
        client_id,
        lambda change, client: clients.rotate_secret(change, client, request.passphrase),
    )
    return SecretAnswer(client_id=client_id, client_secret=secret if secret is not None else UNSET)


def _change_client(service: Service, call: Call, client_id: str, status: ClientStatus) -> ClientView:
    def act(change: Change, client: Client) -> Client:
        with keeping_approvers(change) if status is ClientStatus.DELETED else nullcontext():
            return clients.set_status(change, client, status)

    return _view(_with_client(service, call, client_id, act, ends_sessions=status is not ClientStatus.ENABLED))


def _with_client(
    service: Service,
    call: Call,
    client_id: str,
    act: Callable[[Change, Client], T],
    *,
    ends_sessions: bool = True,
) -> T:
    """Call `act` with a client. Where that ends its sessions, its calls that wait end as well."""
    with service.change(call) as change:
        client = clients.get(change, client_id)
        call.target = client.client_id
        if ends_sessions:
            end_calls_of(change, client_id, call.known_caller.client_id, service.clock())
        return act(change, client)


def _view(client: Client) -> ClientView:
    return ClientView(
        client_id=client.client_id,
        roles=sorted(client.roles),
        status=client.status,
        created_at=client.created_at,
    )
