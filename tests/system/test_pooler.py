"""A node that reaches PostgreSQL through PgBouncer with session pooling."""

from __future__ import annotations

import pytest

from helpers.pgbouncer import pgbouncer
from helpers.running import Start, wait_until
from helpers.support import new_database

pytestmark = pytest.mark.slow


def test_a_pooler_that_is_started_again(start: Start, postgres: str) -> None:
    name = new_database(postgres).rpartition("/")[2]
    with pgbouncer(postgres) as pooler:
        service = start("--workers", "2", "--rate-limit", "off", "--database-url", f"{pooler.url}/{name}")

        def made(key_id: str) -> int:
            return service.curl("POST", "/api/v1/keys", {"key_id": key_id}).status

        def encrypted(key_id: str) -> int:
            return service.curl("POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": ""}).status

        assert [made("orders"), made("invoices")] == [201, 201]
        revoke = "/api/v1/keys/invoices/revoke"
        assert service.curl("POST", revoke, {"reason": "keyCompromise"}).status == 200
        assert {encrypted("invoices") for _ in range(20)} == {403}
        assert encrypted("orders") == 200

        pooler.stop()
        wait_until(lambda: encrypted("orders") == 503)
        assert made("later") == 503
        pooler.start()
        wait_until(lambda: made("later") == 201)
        assert {encrypted("orders") for _ in range(20)} == {200}
        assert {encrypted("invoices") for _ in range(20)} == {403}
        assert service.stop() == 0
