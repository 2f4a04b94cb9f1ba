"""What an organisation changes all day: how quick it is, and what those notice who use other keys meanwhile."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.connections import as_fast_as_they_can, connect
from benchmarks.programs import Measured, Running, Target

CONNECTIONS = 4
ROTATIONS_A_SECOND = 20
_KEYS = 1000
_Request = tuple[str, str, Any]


def kinds(service: Running) -> dict[str, Callable[[], Iterator[_Request]]]:
    """Each kind of change, and what makes the requests for one connection; no two are about one key."""
    round_ = itertools.count()

    def fresh() -> Iterator[str]:
        """Keys that nobody has changed yet."""
        while True:
            prefix = f"changed-{next(round_)}"
            items = [{"key_id": f"{prefix}-{number}"} for number in range(_KEYS)]
            service.call("POST", "/api/v1/keys", {"items": items})
            yield from (str(item["key_id"]) for item in items)

    def on_each(method: str, path: str, body: Any) -> Callable[[], Iterator[_Request]]:
        return lambda: ((method, path % key_id, body) for key_id in fresh())

    def aliases() -> Iterator[_Request]:
        key_id = next(fresh())
        return (("PUT", f"/api/v1/aliases/{key_id}.{number}", {"key_id": key_id}) for number in itertools.count())

    return {
        "rotate": on_each("POST", "/api/v1/keys/%s/rotate", {}),
        "revoke": on_each("POST", "/api/v1/keys/%s/revoke", {}),
        "suspend": on_each("POST", "/api/v1/keys/%s/suspend", {}),
        "set a label": on_each("PATCH", "/api/v1/keys/%s", {"add_labels": {"team": "shop"}}),
        "set an alias": aliases,
        "configure (Vault dialect)": on_each("POST", "/v1/transit/keys/%s/config", {"deletion_allowed": True}),
    }


def measure(service: Running, requests: Callable[[], Iterator[_Request]], seconds: float) -> Measured:
    """Change as fast as `CONNECTIONS` connections of one client can."""
    each_of = [requests() for _ in range(CONNECTIONS)]
    first = [next(each) for each in each_of]  # what they need is made before the time begins

    def change(connection: http.client.HTTPConnection, request: _Request) -> bool:
        return _change(connection, service.token, *request) < http.HTTPStatus.BAD_REQUEST

    both = zip(first, each_of, strict=True)
    return as_fast_as_they_can(service, [itertools.chain([one], rest) for one, rest in both], change, seconds)


def beside_rotations(service: Running, target: Target, core: str, seconds: int) -> tuple[Measured, int]:
    """The load of `target` while other keys of the same client are rotated, and how many were."""
    requests = kinds(service)["rotate"]()
    first = next(requests)
    stop, done = threading.Event(), 0

    def rotate() -> None:
        nonlocal done
        connection = connect(service.url, service.folder / "server.crt")
        began = time.perf_counter()
        for method, path, body in itertools.chain([first], requests):
            if stop.wait(max(0.0, began + done / ROTATIONS_A_SECOND - time.perf_counter())):
                return
            if _change(connection, service.token, method, path, body) == http.HTTPStatus.OK:
                done += 1

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        return target.load(seconds, 16, core), done
    finally:
        stop.set()
        thread.join()


def _change(connection: http.client.HTTPConnection, token: str, method: str, path: str, body: Any) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status
