"""What is measured, by name."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import click

from benchmarks.programs import Running, Target
from benchmarks.seeding import KEY_PATTERN, KEYS
from kms import sigv4
from kms.secret import Secret
from kms.sigv4 import Signed

ITEMS = 100
_KEYS: dict[str, dict[str, Any]] = {
    "aead": {},
    "mac": {"type": "hmac-sha256"},
    "rsa": {"type": "rsa-2048"},
    "p256": {"type": "ec-p256"},
    "ed": {"type": "ed25519"},
    "mldsa": {"type": "ml-dsa-65"},
}


@dataclass(frozen=True)
class Case:
    """A request, how many items one answer counts for, and over how many connections it comes."""

    target: Target
    items: int = 1
    connections: int = 16


def warm_up(found: dict[str, Case], core: str) -> None:
    """Use every key once: what is measured is a worker that has its keys in memory."""
    for name, case in found.items():
        asked = 0.0
        while asked < case.target.keys:
            click.echo(f"warming up: {name}", err=True)
            asked += 5 * case.target.load(5, case.connections, core).per_second


def cases(service: Running, connections: int) -> dict[str, Case]:
    """Each operation that is measured."""
    for key_id, body in _KEYS.items():
        service.call("POST", "/api/v1/keys", {"key_id": key_id, **body})
    found: dict[str, Case] = {}

    def add(name: str, key_id: str, operation: str, body: Any, items: int = 1) -> Any:
        path = f"/api/v1/keys/{key_id}/{operation}"
        found[name] = Case(service.target(path, body), items, connections)
        return service.call("POST", path, body)

    for size, text in ((32, "32 B"), (4096, "4 KiB"), (65536, "64 KiB")):
        plaintext = {"plaintext": base64.b64encode(b"x" * size).decode()}
        sealed = add(f"encrypt {text}", "aead", "encrypt", plaintext)
        add(f"decrypt {text}", "aead", "decrypt", {"ciphertext": sealed["ciphertext"]})
    add("data key", "aead", "data-key", {})
    message = {"message": base64.b64encode(b"x" * 32).decode()}
    add("mac", "mac", "mac", message)
    for name, key_id in (("RSA-2048", "rsa"), ("P-256", "p256"), ("Ed25519", "ed"), ("ML-DSA-65", "mldsa")):
        signed = add(f"sign {name}", key_id, "sign", message)
        add(f"verify {name}", key_id, "verify", {**message, "signature": signed["signature"]})
    several = {"items": [{"plaintext": base64.b64encode(b"x" * 32).decode()}] * ITEMS}
    sealed = add("encrypt 100 at once", "aead", "encrypt", several, ITEMS)["items"]
    opened = {"items": [{"ciphertext": each["ciphertext"]} for each in sealed]}
    add("decrypt 100 at once", "aead", "decrypt", opened, ITEMS)
    single = found["encrypt 32 B"]
    for number in (1, 64):
        found[f"encrypt 32 B, {number} connection{'s' if number > 1 else ''}"] = replace(single, connections=number)
    path = f"/api/v1/keys/{KEY_PATTERN}/encrypt"
    plain = {"plaintext": base64.b64encode(b"x" * 32).decode()}
    for number in (KEYS, 2_000, 1):
        found[f"encrypt 32 B, {number:,} keys"] = Case(service.target(path, plain, keys=number), 1, connections)
    listed = service.target("/api/v1/keys?limit=100", None, "GET")
    found[f"list 100 of {KEYS:,} keys"] = Case(listed, 1, 1)
    found["Vault dialect: encrypt 32 B"] = Case(_vault(service, plain), 1, connections)
    found["AWS dialect: encrypt 32 B"] = Case(_aws(service, plain), 1, connections)
    # A client may hold a quarter of the threads with what changes the vault. Last: requests that are cut off at the
    # end of a round go on for a while.
    found["create symmetric"] = Case(service.target("/api/v1/keys", {}), 1, 4)
    found["create symmetric, 16 connections"] = Case(service.target("/api/v1/keys", {}), 1, 16)
    found["create symmetric, 100 at once"] = Case(service.target("/api/v1/keys", {"items": [{}] * ITEMS}), ITEMS, 1)
    found["create P-256"] = Case(service.target("/api/v1/keys", {"type": "ec-p256"}), 1, 4)
    found["create RSA-2048"] = Case(service.target("/api/v1/keys", {"type": "rsa-2048"}), 1, 4)
    return found


def _vault(service: Running, plain: dict[str, str]) -> Target:
    service.call("POST", "/v1/transit/keys/bench", {})
    headers = (("X-Vault-Token", service.token),)
    return replace(service.target("/v1/transit/encrypt/bench", plain), authorization="-", headers=headers)


def _aws(service: Running, plain: dict[str, str]) -> Target:
    """Signed once, with a time that is good for five minutes from when a round begins."""
    access = service.call("POST", "/api/v1/access-keys", {})
    body = json.dumps({"KeyId": "aead", "Plaintext": plain["plaintext"]}).encode()
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": service.url.removeprefix("https://"),
        "x-amz-target": "TrentService.Encrypt",
    }

    def sign(target: Target) -> Target:
        at = datetime.now(UTC)
        amz_date, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
        sent = {**headers, "x-amz-date": amz_date}
        signed = Signed(access["access_key_id"], day, "us-east-1", "kms", tuple(sorted(sent)))
        key = sigv4.signing_key(Secret(access["secret_access_key"].encode()), signed)
        values = [sent[name] for name in signed.headers]
        signature = sigv4.Prepared(signed, key, "POST", "/", values, amz_date).signature(body)
        credential = f"Credential={signed.access_key_id}/{signed.scope}"
        names = f"SignedHeaders={';'.join(signed.headers)}"
        return replace(
            target,
            authorization=f"{sigv4.ALGORITHM} {credential}, {names}, Signature={signature}",
            headers=(("X-Amz-Target", headers["x-amz-target"]), ("X-Amz-Date", amz_date)),
        )

    return Target(service.url, "/", "", body, content_type=headers["content-type"], prepare=sign)
