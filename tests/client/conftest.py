"""A world over TLS, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from helpers import tls_world
from helpers.support import World
from kms.client import Client

Made = Callable[..., Client]


@pytest.fixture(scope="module")
def address(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of the world, and the certificate to trust."""
    with tls_world.served(shared_world, tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.fixture(scope="module")
def client_of(shared_world: World, address: tuple[str, str]) -> Made:
    """Makes a client of the library, with a session of the client that is named, who is enrolled for that."""
    known: set[str] = set()

    def made(client_id: str) -> Client:
        if client_id not in known:
            known.add(client_id)
            shared_world.enrol(client_id)
        return Client(address[0], ca=address[1], token=tls_world.token_of(shared_world, client_id), patience=5)

    return made


@pytest.fixture(scope="module")
def alice(client_of: Made) -> Client:
    """A client with two keys, `orders` and `signer`."""
    client = client_of("alice")
    client.create_key("orders", labels={"env": "test"}, exportable=True)
    client.create_key("signer", "ec-p256")
    return client
