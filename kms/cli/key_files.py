"""`key import`, `export`, `backup` and `restore`: keys in files."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from kms.cli import remote, show
from kms.cli.failing import Failure
from kms.cli.private_keys import private_key
from kms.client import files, key_transport

_IN = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT = click.Path(path_type=Path, dir_okay=False)
_force = click.option("-f", "--force", is_flag=True, help="Replace what is there.")


@click.command("import")
@click.argument("file", type=_IN)
@click.option("--key-id", help="The id of the new key.")
@click.option("--type", "type_", required=True, help="See docs/reference/key-types.md.")
@click.option("--exportable", is_flag=True, help="Allow exporting it again, wrapped.")
def import_(file: Path, key_id: str | None, type_: str, *, exportable: bool) -> None:
    """Import a key from FILE: a private or public key in PEM, or the raw bytes of a symmetric key.

    It is sent wrapped under a public key of the service.

    \b
    For example:
      kms key import --type ec-p256 --key-id old-signer signer.pem
    """
    client, content = remote.client(), file.read_bytes()
    options = {"exportable": exportable} if exportable else {}
    if b"-----BEGIN PUBLIC KEY-----" in content:
        named = {"key_id": key_id} if key_id else {}
        show.document(client.call("import_key", type=type_, public_key=content.decode(), **named, **options))
        return
    if b"-----BEGIN " in content:
        content = _pkcs8(file)
    made = key_transport.import_key(client, key_id, type_, content, **options)
    show.document(client.call("get_key", key_id=made.key_id))


@click.command()
@click.argument("key_id")
@click.option("-o", "--output", type=_OUT, required=True, help="The file, which only you can read.")
@click.option("--version", type=int, help="The version of the key.  [default: the latest]")
@_force
def export(key_id: str, output: Path, version: int | None, *, force: bool) -> None:
    """Export an exportable key into a file, in plaintext: a private key as PEM, a symmetric one as raw bytes.

    It is sent wrapped under a key that is made only for this. Whoever can read the file has the key.

    \b
    For example:
      kms key export orders -o orders.key
    """
    form, material = key_transport.export_key(remote.client(), key_id, version)
    if form == "pkcs8":
        key = load_der_private_key(material, None)
        material = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(output, material, replace=force)
    click.echo(f"{key_id} → {output}", err=True)


@click.command()
@click.argument("key_id")
@click.option("-o", "--output", type=_OUT, required=True, help="The file.")
@_force
def backup(key_id: str, output: Path, *, force: bool) -> None:
    """Write one key with all its versions into a file that only a service with the same root key can read.

    \b
    For example:
      kms key backup orders -o orders.backup
    """
    answer = remote.client().call_raw("backup_key", {"key_id": key_id})
    _write(output, msgspec.json.decode(answer, type=_Backup).backup, replace=force)
    click.echo(f"{key_id} → {output}", err=True)


@click.command()
@click.argument("file", type=_IN)
def restore(file: Path) -> None:
    """Restore a key from a file that `backup` wrote, unless there is a key with that id already.

    \b
    For example:
      kms key restore orders.backup
    """
    show.document(remote.client().call("restore_key", backup=file.read_bytes()))


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    with files.appearing(path, replace=replace) as file:
        file.write(content)


class _Backup(msgspec.Struct):
    backup: bytes


def _pkcs8(file: Path) -> bytes:
    key = private_key(file)
    try:
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    except ValueError as error:
        raise Failure(f"{file}: {error}.") from None
