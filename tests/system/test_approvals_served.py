"""Approvals on a real service: a rule holds in every worker at once, and last approvals race between processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.running import Running, Start
from helpers.support import new_database

APPROVALS = "/api/v1/approvals"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, start: Start) -> Running:
    """A service with three workers, on either database."""
    flags = ["--workers", "3"]
    if request.param == "postgresql":
        flags += ["--database-url", new_database(request.getfixturevalue("postgres"))]
    return start(*flags, KMS_RATE_LIMIT_GENERATE="1000/minute", KMS_RATE_LIMIT_MANAGE="10000/minute")


def test_a_rule_holds_in_every_worker_and_one_of_the_last_approvals_carries_out(service: Running) -> None:
    approvers = {name: service.login(service.enrol(name, "admin")) for name in ("ann", "bob")}
    for number in range(8):
        made = service.curl("POST", "/api/v1/keys", {"key_id": f"key{number}", "type": "xaes-256-gcm"})
        assert made.status == 201, made.text
    rule = {"name": "rotations", "permissions": ["keys:rotate"], "approvals": 1, "approvers": ["ann", "bob"]}
    assert service.curl("POST", "/api/v1/approval-rules", rule).status == 201
    waiting = []
    for number in range(8):  # each on a connection of its own, which any worker may take
        answer = service.curl("POST", f"/api/v1/keys/key{number}/rotate", {})
        assert answer.status == 202, answer.text
        assert answer.headers["location"] == f"{APPROVALS}/{answer.json['approval_id']}"
        waiting.append(answer.json["approval_id"])
    with ThreadPoolExecutor(2) as threads:
        for number, approval_id in enumerate(waiting):
            path = f"{APPROVALS}/{approval_id}/approve"
            given = [threads.submit(service.curl, "POST", path, {}, token=token) for token in approvers.values()]
            assert sorted(each.result().status for each in given) == [200, 409]
            assert service.curl("GET", f"{APPROVALS}/{approval_id}").json["state"] == "done"
            assert service.curl("GET", f"/api/v1/keys/key{number}").json["latest_version"] == 2
    entries = service.curl("GET", "/api/v1/audit/entries?operation=rotate_key_version&limit=100").json["items"]
    acts = [each["approval"] for each in entries if each["outcome"] == "success"]
    assert sorted(acts) == sorted(waiting)
