"""`sign`, `verify` and `mac`: signatures and codes of files."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any

import click

from kms.cli import remote
from kms.cli.failing import NOT_AUTHENTIC, Failure

_FILE = click.Path(path_type=Path, allow_dash=True, dir_okay=False)
_MOST_SENT = 512 * 1024
_DIGEST_INSTEAD = "A longer file can be signed by its digest, with --algorithm such as ES256 or PS256."
_DIGESTS = {"256": "sha256", "384": "sha384", "512": "sha512"}
_key = click.option("-k", "--key", "key_id", required=True, help="The key.")
_algorithm = click.option("--algorithm", help="A JOSE name, such as PS256.  [default: the first of the key's type]")
_der = click.option("--der", is_flag=True, help="ECDSA signatures in DER, as X.509 and openssl; not as JOSE.")


@click.command()
@click.argument("file", type=_FILE)
@_key
@click.option("-o", "--output", type=_FILE, help="Where the signature goes; - for stdout.  [default: FILE.sig]")
@_algorithm
@_der
def sign(file: Path, key_id: str, output: Path | None, algorithm: str | None, *, der: bool) -> None:
    """Sign FILE (- for stdin), and write the signature as raw bytes.

    For a file of more than 512 KiB only its digest is sent; --algorithm must then name a hash (PS256 names SHA-256).

    \b
    For example:
      kms sign -k releases app.tar.gz
    """
    given = _signed(file, algorithm)
    options: dict[str, Any] = {"algorithm": algorithm, "signature_format": "der" if der else None}
    signature = remote.client().sign(key_id, **given, **options)
    target = output or (Path("-") if file == Path("-") else file.with_name(file.name + ".sig"))
    if target == Path("-"):
        sys.stdout.buffer.write(signature)
    else:
        target.write_bytes(signature)
        click.echo(f"{file} → {target}", err=True)


@click.command()
@click.argument("file", type=_FILE)
@_key
@click.option("--signature", type=_FILE, help="The file of the signature.  [default: FILE.sig]")
@click.option("--version", type=int, help="The version of the key.  [default: the latest]")
@_algorithm
@_der
def verify(
    file: Path, key_id: str, signature: Path | None, version: int | None, algorithm: str | None, *, der: bool
) -> None:
    """Say whether a signature of FILE is valid. The exit code is 8 if it is not.

    \b
    For example:
      kms verify -k releases app.tar.gz
    """
    place = signature or file.with_name(file.name + ".sig")
    options: dict[str, Any] = {"algorithm": algorithm, "signature_format": "der" if der else None}
    found = _read(place)
    if not remote.client().verify(key_id, signature=found, version=version, **_signed(file, algorithm), **options):
        raise Failure(f"{place} is not a signature of {file} by {key_id}.", NOT_AUTHENTIC)
    click.echo("The signature is good.", err=True)


@click.command()
@click.argument("file", type=_FILE)
@_key
@click.option("--check", help="Check this code (hexadecimal) instead of making one. Exits with 8 if it is wrong.")
@click.option("--version", type=int, help="With --check, the version of the key.  [default: the latest]")
def mac(file: Path, key_id: str, check: str | None, version: int | None) -> None:
    """Print the message authentication code (MAC) of FILE (- for stdin) in hexadecimal. FILE has at most 512 KiB.

    \b
    For example:
      kms mac -k webhooks body.json
    """
    message = _read(file)
    if check is None:
        click.echo(remote.client().mac(key_id, message).hex())
        return
    try:
        code = bytes.fromhex(check)
    except ValueError:
        raise click.BadParameter("The code is not in hexadecimal.", param_hint="--check") from None
    if not remote.client().verify_mac(key_id, message, code, version):
        raise Failure(f"That is not the code of {file} by {key_id}.", NOT_AUTHENTIC)
    click.echo("The code is good.", err=True)


def _read(file: Path) -> bytes:
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == Path("-") else file.open("rb") as source:
            content = source.read(_MOST_SENT + 1)
    except FileNotFoundError:
        raise Failure(f"{file} is not there.", 5) from None
    if len(content) > _MOST_SENT:
        raise Failure(f"{file} is too long to be sent: at most 512 KiB. {_DIGEST_INSTEAD}")
    return content


def _signed(file: Path, algorithm: str | None) -> dict[str, Any]:
    """The member of the request with what is signed: the message, or its digest if the file is long."""
    if file != Path("-") and file.exists() and file.stat().st_size > _MOST_SENT:
        name = _DIGESTS.get((algorithm or "")[-3:])
        if name is None or algorithm in {"Ed25519", "Ed448"}:
            raise Failure(f"{file} is too long to be sent: at most 512 KiB. {_DIGEST_INSTEAD}")
        with file.open("rb") as source:
            return {"digest": hashlib.file_digest(source, name).digest()}
    return {"message": _read(file)}
