"""Every line of the README works as it is pasted, and the kms command does what it says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest

from helpers.running import Running, Start
from helpers.shell import ROOT, blocks, objects, run


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", login=False)


def test_the_lines_to_try(service: Running) -> None:
    login, generate, use, decrypt, exchange, any_type, manage, others, one_shot, files = blocks("README.md", "Try it")
    run(service, login.replace("kms login", "kms login --credentials admin.json"))
    assert [answer["key_id"] for answer in objects(run(service, generate))] == [
        "admin_symmetric", "admin_rsa", "admin_ecc", "admin_dh",
    ]  # fmt: skip
    assert [set(answer) & {"ciphertext", "signature"} for answer in objects(run(service, use))] == [
        {"ciphertext"}, {"signature"}, {"signature"},
    ]  # fmt: skip
    assert objects(run(service, decrypt))[0]["plaintext"] == "aGVsbG8="
    assert objects(run(service, exchange))[0]["key_id"] == "admin_session"
    made, signed = objects(run(service, any_type))
    assert (made["key_id"], signed["algorithm"]) == ("releases", "ML-DSA-65")
    rotated, keys, key, first, second, listed = objects(run(service, manage))
    assert rotated["version"] == key["latest_version"] == 2
    assert len(keys["items"]) == 6  # type: ignore[arg-type]
    assert (first["message"], second["message"]) == ("Key admin_rsa revoked.", "Key admin_ecc revoked.")
    assert len(listed["revoked_keys"]) == 2  # type: ignore[arg-type]
    shown = run(service, others)
    assert '"user1_rsa"' in shown
    assert '"create_client"' in shown
    admin = service.admin
    headers = one_shot.replace("X-TOTP: $CODE", f"X-Recovery-Code: {admin['recovery_codes'][0]}")
    assert objects(run(service, headers, SECRET=admin["client_secret"]))[0]["key_id"] == "admin_symmetric"
    run(service, files)


def test_every_endpoint_has_its_line() -> None:
    text = "\n".join(blocks("README.md", "Try it"))
    for endpoint in ("symmetric_key", "rsa_key", "ecc_key", "dh_key"):
        assert f"/generate_{endpoint}" in text
    for endpoint in ("/revoke_key", "/rotate_key", "/revocation_list", "/encrypt", "/decrypt", "/sign"):
        assert endpoint in text


def test_one_command_runs_and_one_tests() -> None:
    (install_and_run,), (install_and_test,) = blocks("README.md", "Run it"), blocks("README.md", "Test it")
    assert install_and_run.endswith("pip install -r requirements.txt && python app.py\n")
    assert install_and_test.endswith("pip install -r requirements-dev.txt && python -m pytest -n 2 --dist loadfile\n")


def test_what_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def kms(service: Running, *arguments: str, code: int = 0, given: str = "") -> str:
    environ = {**service.environ, "HOME": str(service.folder), "PYTHONPATH": str(ROOT), "KMS_URL": service.url}
    environ.pop("XDG_CONFIG_HOME", None)
    command = [sys.executable, "-m", "kms", *arguments]
    done = subprocess.run(
        command, cwd=service.folder, env=environ, capture_output=True, text=True, input=given, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def login_by_recovery_code(service: Running, number: int) -> None:
    """Log in by hand, with a recovery code that no other test uses."""
    given = f"{service.admin['client_secret']}\nadmin\n{service.admin['recovery_codes'][number]}\n"
    assert "Logged in" in kms(service, "login", "--recovery", given=given)


def test_the_command(service: Running) -> None:
    home = service.folder / ".config" / "kms"
    login_by_recovery_code(service, 1)
    for name in ("session.json", "curlrc"):
        assert (home / name).stat().st_mode & 0o777 == 0o600
    created = json.loads(kms(service, "client", "create", "erin", "--role", "user", "--role", "auditor"))
    assert created["roles"] == ["auditor", "user"]
    assert json.loads(kms(service, "client", "disable", "erin"))["status"] == "disabled"
    assert json.loads(kms(service, "client", "enable", "erin"))["status"] == "enabled"
    assert "totp_secret" in kms(service, "client", "reset-totp", "erin")
    assert "client_secret" in kms(service, "client", "rotate-secret", "erin")
    assert "erin" in kms(service, "client", "list")
    assert json.loads(kms(service, "client", "delete", "erin", "--yes"))["status"] == "deleted"
    assert "There is no client erin" in kms(service, "client", "disable", "erin", code=5)
    assert json.loads(kms(service, "key", "generate", "symmetric"))["key_id"] == "admin_symmetric"
    assert json.loads(kms(service, "key", "suspend", "admin_symmetric"))["state"] == "suspended"
    assert json.loads(kms(service, "key", "resume", "admin_symmetric"))["state"] == "active"
    assert json.loads(kms(service, "key", "rotate", "admin_symmetric"))["version"] > 1
    assert "revoked" in kms(service, "key", "revoke", "admin_symmetric", "--yes", "--reason", "superseded")
    assert json.loads(kms(service, "key", "show", "admin_symmetric"))["state"] == "deactivated"
    made = json.loads(kms(service, "key", "create", "cli-made", "--type", "ec-p256", "--usage", "agree"))
    assert (made["type"], made["usages"]) == ("ec-p256", ["agree"])
    assert kms(service, "key", "public", "cli-made").startswith("-----BEGIN PUBLIC KEY-----")
    assert json.loads(kms(service, "key", "public", "cli-made", "--format", "jwk"))["kty"] == "EC"
    assert json.loads(kms(service, "key", "delete", "cli-made", "--yes"))["deletion_at"]
    assert json.loads(kms(service, "key", "cancel-deletion", "cli-made"))["deletion_at"] is None
    assert '"operation": "revoke_key"' in kms(service, "audit", "tail", "-n", "20")
    assert "as the service wrote it" in kms(service, "vault", "verify")
    assert f"Database: sqlite:///{service.folder}/kms-data/kms.db\n" in kms(service, "vault", "verify")
    elsewhere = kms(service, "vault", "verify", "--data-dir", "elsewhere", code=1)
    assert "no vault" in elsewhere
    assert f"{service.folder}/elsewhere/kms.db (no service runs on the data directory elsewhere now)" in elsewhere
    for command in (["verify"], ["accept", "--yes"]):
        other = kms(service, "vault", *command, "--database-url", "sqlite:///other.db", code=1)
        assert f"runs on sqlite:///{service.folder}/kms-data/kms.db" in other
        assert f"name sqlite:///{service.folder}/other.db" in other
    assert not (service.folder / "other.db").exists()
    assert "Logged out" in kms(service, "logout")
    assert "not logged in" in kms(service, "key", "list", code=3)
    assert not home.joinpath("session.json").exists()


def on_a_terminal(service: Running, *arguments: str) -> list[str]:
    """The lines that the command shows on a terminal of 80 columns."""
    environ = {
        **service.environ,
        "HOME": str(service.folder),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
        "TERM": "dumb",
    }
    environ.pop("XDG_CONFIG_HOME", None)
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kms", *arguments], cwd=service.folder, env=environ, stdout=its, stderr=its
    ) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal says that nobody has it open any more
            while part := os.read(ours, 65536):
                shown += part
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode().splitlines()


def test_lists_are_tables_on_a_terminal_and_json_for_programs(service: Running) -> None:
    login_by_recovery_code(service, 2)
    long = "a-key-with-a-name-as-long-as-it-takes-to-fill-the-line-of-a-terminal-" + "x" * 59
    kms(service, "key", "create", long)
    heading, *rows = on_a_terminal(service, "key", "list")
    assert heading.split() == ["key_id", "type", "state", "latest_version", "expires_at"]
    assert long in "".join(row.split(" ")[0] for row in rows)  # nothing is left out
    as_json = [json.loads(line) for line in on_a_terminal(service, "key", "list", "--json")]
    assert as_json == objects(run(service, "python -m kms key list"))
    assert long in {key["key_id"] for key in as_json}
    heading, *rows = on_a_terminal(service, "audit", "tail", "-n", "3")
    assert heading.split()[0] == "time"
    lines = on_a_terminal(service, "audit", "tail", "-n", "3", "--json")
    assert [set(json.loads(line)) >= {"time", "operation"} for line in lines] == [True] * 3
    assert len(objects(run(service, "python -m kms audit tail -n 2"))) == 2


def test_what_the_command_says_of_a_service_it_cannot_trust_or_reach(service: Running) -> None:
    arguments = ["login", "--credentials", "admin.json"]
    assert "cannot be reached" in kms(service, *arguments, "--url", "https://localhost:1", code=7)
    assert "not an https" in kms(service, *arguments, "--url", "http://localhost", code=1)
    (service.folder / "other").mkdir(exist_ok=True)
    other = subprocess.check_output(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x"],
        stderr=subprocess.DEVNULL,
    )
    (service.folder / "other" / "ca.crt").write_bytes(other)
    assert "not trusted" in kms(service, *arguments, "--ca-cert", "other/ca.crt", code=7)
