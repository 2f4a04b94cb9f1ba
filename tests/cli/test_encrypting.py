"""Files, signatures and revocations by the command; its exit codes, its pages, and every operation by its name."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from helpers.shell import objects
from kms.cli import main, show
from kms.cli.failing import EXIT_CODES
from kms.client.operations import operations

Kms = Callable[..., list[Any]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _a_key(kms: Kms, request: pytest.FixtureRequest) -> None:
    if not any(each["key_id"] == "backups" for each in kms("key", "list", by="alice") if isinstance(each, dict)):
        kms("key", "create", "backups", "--exportable")
        kms("key", "create", "signer", "--type", "ec-p256")


def test_a_file_there_and_back(kms: Kms) -> None:
    Path("dump.sql").write_bytes(b"x" * 100_000)
    kms("encrypt", "-k", "backups", "--context", "host=db1", "dump.sql")
    (header,) = kms("inspect", "dump.sql.kms")
    assert header == {"key_id": "backups", "version": header["version"], "context": {"host": "db1"}}
    kms("key", "rotate", "backups")
    kms("rewrap", "dump.sql.kms")
    assert kms("inspect", "dump.sql.kms")[0]["version"] == header["version"] + 1
    assert "is there already" in kms("decrypt", "dump.sql.kms", code=1)[0]
    kms("decrypt", "--force", "--context", "host=db1", "dump.sql.kms")
    assert Path("dump.sql").read_bytes() == b"x" * 100_000
    assert "under backups, not" in kms("decrypt", "-o", "out", "-k", "other", "dump.sql.kms", code=8)[0]
    kms("decrypt", "-o", "/dev/null", "-k", "backups", "dump.sql.kms")
    assert Path("/dev/null").is_char_device()
    assert "host=db2" in kms("decrypt", "-o", "out", "--context", "host=db2", "dump.sql.kms", code=8)[0]
    sealed = bytearray(Path("dump.sql.kms").read_bytes())
    sealed[-1] ^= 1
    Path("dump.sql.kms").write_bytes(sealed)
    assert "altered or cut off" in kms("decrypt", "-o", "out", "dump.sql.kms", code=8)[0]
    assert not Path("out").exists()
    assert "No such file" in kms("encrypt", "-k", "backups", "nothing", code=1)[0]
    assert "no key" in kms("encrypt", "-k", "none", "dump.sql", code=5)[0]
    assert "say with -o" in kms("decrypt", "dump.sql", code=2)[0]


def test_pipes(kms: Kms) -> None:
    sealed = CliRunner().invoke(main, ["encrypt", "-k", "backups", "-"], input=b"hello\0").stdout_bytes
    assert sealed.startswith(b"kmsenv")
    assert CliRunner().invoke(main, ["decrypt", "-"], input=sealed).stdout_bytes == b"hello\0"
    cut = CliRunner().invoke(main, ["decrypt", "-"], input=sealed[:-3])
    assert (cut.exit_code, cut.stdout_bytes) == (8, b"")
    into_a_file = CliRunner().invoke(main, ["decrypt", "-o", "out", "-"], input=sealed[:-3])
    assert (into_a_file.exit_code, Path("out").exists()) == (8, False)


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(kms: Kms) -> None:
    Path("folder").mkdir()
    for command in (["encrypt", "-k", "backups"], ["sign", "-k", "signer"]):
        done = CliRunner().invoke(main, [*command, "-o", "folder/none/x" if command[0] == "sign" else "folder", "-"])
        assert (done.exit_code, done.output.startswith("Error: folder")) == (1, True), done.output


def test_a_tree(kms: Kms) -> None:
    Path("reports/deep").mkdir(parents=True)
    Path("reports/a").write_text("a")
    Path("reports/deep/b").write_text("b")
    assert "-r takes all" in kms("encrypt", "-k", "backups", "reports", code=2)[0]
    assert "outside" in kms("encrypt", "-k", "backups", "-r", "reports", "-o", "reports/out", code=2)[0]
    kms("encrypt", "-k", "backups", "-r", "reports", "-o", "sealed")
    kms("key", "rotate", "backups")
    kms("rewrap", "-r", "sealed")
    Path("sealed/c.kms").write_text("foreign")
    assert "1 of the files" in kms("decrypt", "-r", "sealed", "-o", "back", code=8)[0]
    assert (Path("back/a").read_text(), Path("back/deep/b").read_text()) == ("a", "b")


def test_signatures_and_codes(kms: Kms) -> None:
    Path("app.tar").write_bytes(os.urandom(600_000))
    assert "too long" in kms("sign", "-k", "signer", "app.tar", code=1)[0]
    kms("sign", "-k", "signer", "--algorithm", "ES256", "--der", "app.tar")
    public = kms("key", "public", "signer")[0]
    Path("signer.pem").write_text(public)
    check = ["openssl", "dgst", "-sha256", "-verify", "signer.pem", "-signature", "app.tar.sig", "app.tar"]
    assert b"OK" in subprocess.run(check, capture_output=True, check=True).stdout
    kms("verify", "-k", "signer", "--algorithm", "ES256", "--der", "app.tar")
    Path("app.tar").write_bytes(b"another")
    assert "not a signature" in kms("verify", "-k", "signer", "--algorithm", "ES256", "--der", "app.tar", code=8)[0]
    kms("key", "create", "hooks", "--type", "hmac-sha256")
    code = kms("mac", "-k", "hooks", "app.tar")[0].strip()
    kms("mac", "-k", "hooks", "--check", code, "app.tar")
    long = CliRunner().invoke(main, ["mac", "-k", "hooks", "-"], input=bytes(600_000))
    assert (long.exit_code, "too long" in long.output) == (1, True)  # and not the code of its beginning
    assert "not the code" in kms("mac", "-k", "hooks", "--check", "00" * 32, "app.tar", code=8)[0]
    kms("mac", "-k", "hooks", "--check", "zz", "app.tar", code=2)


def test_keys_in_files(kms: Kms) -> None:
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "own.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    kms("key", "import", "--type", "ec-p256", "--key-id", "own", "--exportable", "own.pem")
    kms("key", "export", "own", "-o", "back.pem")
    assert Path("back.pem").stat().st_mode & 0o777 == 0o600
    public = ["openssl", "pkey", "-pubout", "-in"]
    assert subprocess.check_output([*public, "own.pem"]) == subprocess.check_output([*public, "back.pem"])
    Path("raw").write_bytes(bytes(range(32)))
    kms("key", "import", "--type", "xaes-256-gcm", "--key-id", "raw", "--exportable", "raw")
    kms("key", "export", "raw", "-o", "raw.back")
    assert Path("raw.back").read_bytes() == bytes(range(32))
    kms("key", "backup", "raw", "-o", "raw.backup")
    assert "already" in kms("key", "restore", "raw.backup", code=6)[0]
    assert "there already" in kms("key", "backup", "raw", "-o", "raw.backup", code=1)[0]
    kms("key", "backup", "raw", "-o", "raw.backup", "--force")
    assert "exportable" in kms("key", "export", "signer", "-o", "x", code=6)[0]


def test_revocations_also_offline(kms: Kms) -> None:
    kms("key", "create", "lost")
    assert "is not revoked" in kms("revocations", "check", "lost")[0]
    kms("key", "revoke", "lost", "--yes")
    assert "keyCompromise" in kms("revocations", "check", "lost", code=9)[0]
    assert "lost" in {each["key_id"] for each in kms("revocations", "list")}
    kms("revocations", "fetch", "lists")
    offline = ["revocations", "check", "lost", "--offline", "lists/revocations.json"]
    assert "lost is revoked" in kms(*offline, code=9)[0]
    assert "still" not in kms(*offline, "--version", "1", code=9)[0]
    assert "is not revoked" in kms("revocations", "check", "found", "--offline", "lists/revocations.json")[0]
    kms("call", "set_alias", "prod", "--key-id", "lost")
    assert "another name of lost" in kms("revocations", "check", "prod", code=7)[0]
    assert "does not follow aliases" in kms("revocations", "check", "prod", *offline[3:])[0]
    assert "not a key id" in kms("revocations", "check", "alias/prod", code=7)[0]
    document = Path("lists/revocations.json").read_text()
    Path("lists/revocations.json").write_text(re.sub(r'"jws":"([^.]*\.)(....)', r'"jws":"\1AAAA', document))
    assert "not signed" in kms(*offline, code=8)[0]


def test_any_operation_by_its_name(kms: Kms) -> None:
    Path("message").write_bytes(b"hello")
    (sealed,) = kms("call", "encrypt", "backups", "--plaintext", "@message")
    (opened,) = kms("call", "decrypt", "backups", "--ciphertext", sealed["ciphertext"])
    assert opened["plaintext"] == "aGVsbG8="
    typed = CliRunner().invoke(main, ["call", "encrypt", "backups", "--json"], input="hello\n")
    (sealed,) = objects(typed.stdout[typed.stdout.index("{") :])
    assert kms("call", "decrypt", "backups", "--ciphertext", str(sealed["ciphertext"]))[0] == opened
    (made,) = kms("call", "create-key", "--labels", '{"env": "prod"}', "--usages", "encrypt", "--exportable", "true")
    assert (made["labels"], made["usages"], made["exportable"]) == ({"env": "prod"}, ["encrypt"], True)
    (batch,) = kms("call", "random", "--items", "-", given='{"length": 4}\n{"length": 5}\n')
    assert len(batch["items"]) == 2
    (told,) = kms("call", "random", "--items", "-", given='{"length": 4}\n{"length": -1}\n', code=1)
    assert "1 of the requests failed" in told
    assert "JSON object on each line" in kms("call", "random", "--items", "-", given="{", code=2)[0]
    assert "no other options" in kms("call", "random", "--length", "4", "--items", "-", given="{}", code=2)[0]
    assert "never an argument" in kms("call", "encrypt", "backups", "--plaintext", "aGVsbG8=", code=2)[0]
    secret = ("call", "rotate-client-secret", "alice", "--passphrase")
    assert "never an argument" in kms(*secret, "correct horse", code=2)[0]
    assert "true or false" in kms("call", "create-key", "--exportable", "maybe", code=2)[0]
    for name, operation in operations().items():
        text = CliRunner().invoke(main, ["call", name.replace("_", "-"), "--help"])
        assert (text.exit_code, operation.path in text.output) == (0, True)
        for member in operation.members:  # what an example shows must be taken
            shown = re.search(rf"--{member.name.replace('_', '-')} (\S+)", text.output.partition("Options:")[0])
            assert not member.is_secret or shown is None or shown[1] == "@FILE"


def test_an_overview_and_what_is_said_when_it_is_away(kms: Kms) -> None:
    (found,) = kms("status")
    assert (found["service"], found["client_id"]) == ("ready", "alice")
    home = Path(os.environ["KMS_HOME"]) / "session.json"
    home.write_text(re.sub(r"localhost:\d+", "localhost:1", home.read_text()))
    assert "cannot be reached" in kms("status", code=7)[0]


def commands(group: click.Group, path: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command, but for those that are made from the table of operations."""
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if not isinstance(found, click.Group):
            yield f"{path} {name}", found
        elif name != "call":
            yield from commands(found, f"{path} {name}", context)


def test_every_command_has_help_and_an_example() -> None:
    found = dict(commands(main, "kms", click.Context(main)))
    assert len(found) > 60
    for path, command in found.items():
        assert f"For example:\n  {path}" in inspect.cleandoc(command.help or "") or path == "kms completion", path


def test_the_manual_page() -> None:
    done = subprocess.run([sys.executable, "-m", "kms", "man"], capture_output=True, text=True, check=True, cwd=ROOT)
    for command in ("kms encrypt FILE", "kms key create KEY_ID", "kms revocations check KEY_ID", "kms serve"):
        assert command.replace("-", "\\-") in done.stdout
    page = ["man", "-l", "-"] if Path("/usr/bin/man").exists() else ["cat"]
    shown = subprocess.run(
        page, input=done.stdout, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    assert "EXIT STATUS" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert "_KMS_COMPLETE" in done.output
    command = [sys.executable, "-c", "from kms.cli import main; main(prog_name='kms')"]
    asked = {
        "_KMS_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "kms key ro",
        "COMP_CWORD": "ro" if shell == "fish" else "2",
    }
    completed = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **asked}, cwd=ROOT, check=False
    )
    assert "rotate" in completed.stdout


def test_the_exit_codes_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "command.md").read_text()
    for code, about, _ in EXIT_CODES:
        assert f"| {code} | " in page, code
        assert about.partition(":")[0] in page


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_never_leads_to_another_path(kms: Kms, name: str) -> None:
    """Of `/clients/alice/sessions/..` a client makes `/clients/alice`, which is another operation."""
    assert "is no name" in kms("client", "end-session", "alice", name, code=1)[0]
    assert "is no name" in kms("call", "end-one-session", "alice", name, code=1)[0]
    assert "is no name" in kms("key", "show", name, code=1)[0]
    assert kms("client", "sessions")


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    cell = show._cell({"description": "\x1b]0;mine\x07\x9b2J\r\n"})
    assert cell.plain == "description=�]0;mine�2J�"


def test_a_session_stays_until_it_is_ended(kms: Kms) -> None:
    home = Path(os.environ["KMS_HOME"]) / "session.json"
    good = home.read_text()
    home.write_text(re.sub(r"localhost:\d+", "localhost:1", good))
    kms("logout", code=7)
    assert home.exists()
    home.write_text(good)
    kms("logout")
    assert not home.exists()
