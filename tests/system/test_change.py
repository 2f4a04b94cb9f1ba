"""Changes under load: nobody who uses keys is refused for them, and the same client least of all."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections import Counter

import pytest

from helpers.load import Load
from helpers.running import Running, Start
from helpers.support import new_database

CHANGERS = 64


@pytest.fixture(scope="module", params=["1-sqlite", "2-sqlite", "2-postgresql"])
def service(request: pytest.FixtureRequest, start: Start) -> Running:
    workers, database = request.param.split("-")
    flags = ["--workers", workers, "--rate-limit", "off"]
    if database == "postgresql":
        flags += ["--database-url", new_database(request.getfixturevalue("postgres"))]
    # A long lease, which on one host no change waits for: this is not about a machine that is too busy to renew it.
    return start(*flags, KMS_LEASE="PT30S")


def test_a_client_with_many_changes_under_way_is_refused_no_use(service: Running) -> None:
    items = [{"key_id": name} for name in ("used", *(f"k{number}" for number in range(CHANGERS)))]
    made = service.curl("POST", "/api/v1/keys", {"items": items})
    assert all("error" not in each for each in made.json["items"])
    outcomes: Counter[int] = Counter()
    until = time.monotonic() + 3
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}

    def change(number: int) -> None:
        connection = http.client.HTTPSConnection("localhost", service.port, context=context, timeout=60)
        while time.monotonic() < until:
            path = f"/api/v1/keys/k{number}/{'rotate' if number % 2 else 'suspend'}"
            connection.request("POST", path, b"{}", headers)
            answer = connection.getresponse()
            answer.read()
            outcomes[answer.status] += 1

    with Load(service, service.token, "used") as load:
        load.wait_for(200)
        changers = [threading.Thread(target=change, args=(number,)) for number in range(CHANGERS)]
        for changer in changers:
            changer.start()
        for changer in changers:
            changer.join(timeout=60)
    assert {use.status for use in load.uses} == {200}
    assert outcomes[200] > CHANGERS
    assert set(outcomes) <= {200, 503}  # a change may be asked to come again
