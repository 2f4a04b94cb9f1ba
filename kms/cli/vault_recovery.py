"""`vault recovery-key`: makes the key that opens a vault whose seal is gone; and how other commands take it."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from kms.cli.on_host import local_entry, of_the_service, opened
from kms.errors import StartError
from kms.files import private_bytes

if TYPE_CHECKING:
    from kms.secret import Secret
    from kms.vault.keyset import Keyset
    from kms.vault.opening import Unseal
    from kms.vault.rows import Keyslot

_ABOUT_ONE = "Whoever has this recovery key and the database has every key. Keep it in a safe, apart from both."
_ABOUT_SHARES = (
    "Give each share to another person. {threshold} of the {shares} open the vault when its seal is gone; keep them "
    "apart from this host and from each other."
)


@click.command("recovery-key")
@click.option("--shares", type=int, help="Split it into so many shares.")
@click.option("--threshold", type=int, help="How many of the shares open the vault.")
@click.option("--to", "directory", type=click.Path(path_type=Path), help="Write files into this directory instead.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@of_the_service
def recovery_key(
    *, shares: int | None, threshold: int | None, directory: Path | None, yes: bool, **flags: Any
) -> None:
    """Make a recovery key, which opens the vault on the day when its seal is gone, and show it once.

    It takes the place of the one before. `kms vault reseal --to SEAL --recovery` uses it.

    \b
    For example:
      kms vault recovery-key --shares 5 --threshold 3
    """
    from kms.vault import resealing
    from kms.vault.handing_out import hand_out, require_place
    from kms.vault.keyset import new_secret
    from kms.vault.keyslots import RECOVERY
    from kms.vault.rows import Keyslot
    from kms.vault.shares import recovery_text, require_possible, split

    if (shares is None) != (threshold is None):
        raise StartError("Give both: --shares, how many there are, and --threshold, how many of them are needed.")
    if shares is not None and threshold is not None:
        require_possible(shares, threshold)
    require_place(directory, "Run this on one, or name a directory: --to.")
    vault = opened(flags)
    with vault.read() as snapshot:
        resealing.require_same_root_key(snapshot)
        there = snapshot.find(Keyslot, RECOVERY)
    if there is not None and not yes:
        click.confirm("There is a recovery key. Make another one? This one will open nothing any more.", abort=True)
    key, parameters = new_secret(), {}
    if shares is not None and threshold is not None:
        share_set, made = split(key, shares=shares, threshold=threshold)
        parameters = share_set.parameters()
        texts = {f"kms-recovery-share-{share_set.name}-{each.number}": each.encoded() for each in made}
        about = _ABOUT_SHARES.format(shares=shares, threshold=threshold)
    else:
        texts, about = {"kms-recovery-key": recovery_text(key)}, _ABOUT_ONE
    hand_out(texts, directory, about)  # before it is in force: one that nobody has would replace one that is kept
    resealing.make_recovery_key(vault, key, parameters, local_entry("make_recovery_key"))
    structlog.get_logger().critical("an operator made a recovery key; the one before, if any, opens nothing any more")
    click.echo(f"Done. The recovery key is in force{f'; it is in {directory}' if directory is not None else ''}.")


class Recovery:
    """Whether the recovery key opens the vault, in place of its seal, and the files that hold it or its shares."""

    def __init__(self, files: tuple[str, ...], *, is_used: bool) -> None:
        self.is_used = is_used
        self._files = files
        self._key: Secret | None = None

    def key_for(self, slot: Keyslot) -> Secret:
        """The recovery key, which is asked for once, in the form that `slot` names. Raises StartError."""
        if self._key is None:
            self._key = _asked(slot, self._files)
            structlog.get_logger().critical("an operator opens the vault by its recovery key")
        return self._key

    @property
    def unseal(self) -> Unseal | None:
        """What takes the place of the seal; None where the seal opens the vault."""
        from kms.vault import resealing

        def by_recovery_key(slots: list[Keyslot], vault_id: bytes) -> Keyset:
            recovery_key = self.key_for(resealing.recovery_slot(slots))
            return resealing.by_recovery_key(recovery_key)(slots, vault_id)

        return by_recovery_key if self.is_used else None


def takes_recovery_key(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of the recovery key; it gets what they say as `by`, a `Recovery`."""

    @wraps(command)
    def carried_out(*, recovery: bool, recovery_key_file: tuple[str, ...], **given: Any) -> None:
        command(by=Recovery(recovery_key_file, is_used=recovery or bool(recovery_key_file)), **given)

    decorated: Callable[..., None] = carried_out
    about = "A file with the recovery key or a share of it; repeatable."
    decorated = click.option("--recovery-key-file", multiple=True, help=about)(decorated)
    return click.option("--recovery", is_flag=True, help="Open it by the recovery key: the seal is gone.")(decorated)


def _asked(slot: Keyslot, files: tuple[str, ...]) -> Secret:
    """The recovery key for this keyslot, from files or asked for on the terminal: whole, or in shares.

    Raises StartError.
    """
    from kms.vault.keyslots import SealRecord
    from kms.vault.shares import Gathered, Share, ShareRefused, ShareSet, recovery_key_of

    parameters = SealRecord.decoded(slot.seal).parameters
    if "hashes" not in parameters:
        return recovery_key_of(next(_texts(files, "Recovery key: ")))
    gathered = Gathered(ShareSet.of(parameters))
    name, threshold = gathered.of.name, gathered.of.threshold
    try:
        for text in _texts(files, f"Share of the recovery key (set {name}, {threshold} are needed): "):
            try:
                gathered.add(Share.decoded(text))
            except ShareRefused as refused:
                if files:
                    raise
                click.echo(str(refused), err=True)
            if gathered.is_enough:
                return gathered.secret()
        raise StartError(f"{threshold} shares of the set {name} are needed, and the files hold {len(gathered)}.")
    finally:
        gathered.forget()


def _texts(files: tuple[str, ...], prompt: str) -> Iterator[str]:
    """The texts in the files; without any, what is typed on the terminal, until an empty line. Raises StartError."""
    for file in files:
        yield private_bytes(Path(file)).decode("utf-8", "replace")
    while not files:
        if not sys.stdin.isatty():
            raise StartError("There is no terminal to ask on: name files with --recovery-key-file.")
        text = getpass.getpass(prompt)
        if not text.strip():
            raise StartError("Nothing was given. Nothing was done.")
        yield text
