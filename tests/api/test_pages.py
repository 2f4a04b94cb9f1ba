"""What people find who open the service in a browser, and programs that ask at the wrong place."""

from __future__ import annotations

import pytest

from helpers.support import World, kind_of
from kms.api import reference

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_a_browser_finds_a_page_at_the_root_that_leads_to_the_documentation(shared_world: World) -> None:
    answer = shared_world.http.get("/", headers={"Accept": BROWSER})
    assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"] == reference.CONTENT_SECURITY_POLICY
    assert answer.headers["Vary"] == "Accept"
    assert 'href="/docs"' in answer.text
    assert "<script" not in answer.text


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html;q=0.5"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_program_finds_nothing_there_and_is_told_where_to_look(
    shared_world: World, method: str, accept: str | None
) -> None:
    answer = shared_world.http.open("/", method=method, headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert "/docs" in answer.json["detail"]
    assert answer.json["detail"] == shared_world.http.get("/nowhere").json["detail"]


def test_who_sends_no_credentials_is_told_how_to_get_a_session(shared_world: World) -> None:
    answer = shared_world.http.get("/api/v1/keys")
    assert kind_of(answer) == "authentication-failed"
    assert "POST /auth/token" in answer.json["detail"]
    assert "POST /auth/token" in shared_world.http.get(answer.json["type"]).text
