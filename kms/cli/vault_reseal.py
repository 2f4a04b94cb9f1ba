"""`vault reseal`: another seal, while the service runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from kms.cli import show
from kms.cli.on_host import local_entry, of_the_service, opened, require_own_database, settings_of
from kms.cli.vault_recovery import Recovery, takes_recovery_key
from kms.config import Settings, load
from kms.errors import StartError
from kms.files import private_bytes

if TYPE_CHECKING:
    from kms.vault.rows import Keyslot
    from kms.vault.seals import Seal
    from kms.vault.store import Vault

_OF_SEALS = "seal_"
_FROM_FILE = "_file"


@click.command()
@click.option("--to", "name", metavar="SEAL", help="The new seal, such as passphrase. Without it: show the seals.")
@click.option("--to-settings", metavar="FILE", help="A TOML file with settings of the new seal (seal_…), mode 0600.")
@takes_recovery_key
@click.option("--abandon", is_flag=True, help="Drop a new seal that no start has proven yet.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@of_the_service
def reseal(
    *,
    name: str | None,
    to_settings: str | None,
    by: Recovery,
    abandon: bool,
    yes: bool,
    **flags: Any,
) -> None:
    """Give the vault another seal, while the service runs.

    The present seal and the new one both open the vault until a start by the new one has shown that it works; then
    the old one opens nothing. The settings of the present seal are those of the service. The new one takes the same
    variables KMS_SEAL_…, and before them what --to-settings names: use that for another passphrase, file or key of
    the same kind of seal.

    \b
    For example:
      kms vault reseal --to passphrase
    """
    settings = settings_of(flags)
    if abandon:
        _abandon(_opened(settings, flags, by), yes=yes)
    elif name is None:
        _show(settings)
    else:
        _begin(settings, name, to_settings, flags, by, yes=yes)


def _begin(
    settings: Settings, name: str, file: str | None, flags: dict[str, Any], by: Recovery, *, yes: bool
) -> None:
    from kms.vault import resealing
    from kms.vault.seals import Seals

    after = _new_settings(flags, name, file)
    new = Seals(after).named(name)
    _require_another(settings, after, new, by, is_given=file is not None)
    vault = _opened(settings, flags, by)
    if not yes:
        click.confirm(f"Have the new seal, {name}, open this vault too?", abort=True)
    resealing.begin(vault, new, local_entry("reseal", f"{settings.seal} to {name}"))
    structlog.get_logger().critical(f"an operator made a new seal, {name}; it waits for a start that proves it")
    click.echo(_what_to_do(settings, name, by))


def _new_settings(flags: dict[str, Any], name: str, file: str | None) -> Settings:
    """The settings of the service with the new seal. Raises StartError."""
    kept = {flag: value for flag, value in flags.items() if value and flag not in ("seal", "share_file")}
    return load({**kept, **(_members(Path(file)) if file is not None else {}), "seal": name})


def _members(path: Path) -> dict[str, Any]:
    """The settings in the file. `seal_x_file` names a file with the value of `seal_x`. Raises StartError."""
    try:
        members = tomllib.loads(private_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"Cannot read the settings in {path}: {error}.") from None
    settings, found = Settings.__struct_fields__, {}
    for member, value in members.items():
        base = member.removesuffix(_FROM_FILE)
        if member not in settings and base in settings:
            found[base] = private_bytes(Path(str(value))).decode("utf-8", "replace").rstrip("\r\n")
        else:
            found[member] = value
    others = [member for member in found if not member.startswith(_OF_SEALS)]
    if others:
        raise StartError(f"{path} holds settings of the new seal only (seal_…), and not {', '.join(others)}.")
    return found


def _require_another(before: Settings, after: Settings, new: Seal, by: Recovery, *, is_given: bool) -> None:
    """Raise StartError where the new seal would be the present one again, or have a key that was there before."""
    from kms.vault.seals import FileSeal

    asks = new.name == "shamir" or (new.name == "passphrase" and before.seal_passphrase is None)
    if new.name == before.seal and not (is_given or asks or by.is_used):
        raise StartError(
            f"The vault has the seal {new.name} already. Name the settings of another one in a file: --to-settings."
        )
    if new.name == before.seal and not by.is_used and _has_same_secret(before, after, new):
        raise StartError(f"This is the {new.name} that the vault has now. Give it another one.")
    if isinstance(new, FileSeal) and new.path.exists():
        raise StartError(
            f"{new.path} is there already, and who knows who has read it. Name another file in KMS_SEAL_FILE (or "
            "seal_file in --to-settings), or move this one away if the vault has another seal."
        )


def _has_same_secret(before: Settings, after: Settings, new: Seal) -> bool:
    from kms.vault.seals import CredentialSeal

    if isinstance(new, CredentialSeal):
        return new.seal_key({}) == CredentialSeal(before).seal_key({})
    given = after.seal_passphrase
    return new.name == "passphrase" and given is not None and given == before.seal_passphrase


def _what_to_do(before: Settings, name: str, by: Recovery) -> str:
    from kms.vault.seals import FileSeal

    old = f"The present seal ({before.seal}) and the new one ({name}) both open the vault now."
    lines = [f"The new seal ({name}) opens the vault now." if by.is_used else old, "", "What is left to do:"]
    lines.append(f"  1. On every node set KMS_SEAL={name}, and what it needs, where the service finds its settings.")
    lines.append("  2. Restart them, one after the other. The first start by the new seal makes it the only one.")
    if before.seal == FileSeal.name:
        lines.append(f"  3. When all have started, remove {FileSeal(before).path}: it opens nothing any more.")
    lines += ["", "Changed your mind before that? kms vault reseal --abandon"]
    return "\n".join(lines)


def _abandon(vault: Vault, *, yes: bool) -> None:
    from kms.vault import resealing

    with vault.read() as snapshot:
        name = resealing.waiting(snapshot)
    if name is None:
        click.echo("No new seal waits for a start.")
        return
    if not yes:
        click.confirm(f"Drop the new seal, {name}? It will open nothing any more.", abort=True)
    resealing.abandon(vault, local_entry("abandon_reseal", name))
    structlog.get_logger().critical(f"an operator dropped the new seal, {name}, before any start had proven it")
    click.echo(f"Dropped. Only the present seal opens the vault; start every node with it, and not with {name}.")


def _show(settings: Settings) -> None:
    from kms.vault import resealing

    require_own_database(settings, on_stderr=True)
    show.document(resealing.described(_stored_keyslots(settings)))


def _stored_keyslots(settings: Settings) -> list[Keyslot]:
    from kms.vault.opening import stored_vault

    stored = stored_vault(settings)
    if stored is None:
        raise StartError("There is no vault in this database.")
    return stored.slots


def _opened(settings: Settings, flags: dict[str, Any], by: Recovery) -> Vault:
    from kms.vault import resealing
    from kms.vault.opening import open_vault

    if not by.is_used:
        return opened(flags)
    require_own_database(settings)
    by.key_for(resealing.recovery_slot(_stored_keyslots(settings)))  # before anything is open: people take their time
    return open_vault(settings, create=False, unseal=by.unseal)
