"""The seal key in shares: any k of n people open the vault together, and no fewer (Shamir's secret sharing)."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

import structlog

from kms.config import Settings
from kms.errors import StartError
from kms.files import private_bytes
from kms.secret import Secret
from kms.vault.handing_out import hand_out, require_place
from kms.vault.seals.base import SEAL_KEY_BYTES, KeySeal, Parameters
from kms.vault.shares import Gathered, Share, ShareRefused, ShareSet, require_possible, split

_ABOUT = (
    "Give each share to another person, who keeps it apart from this host. {threshold} of the {shares} open the "
    "vault after every start; with fewer nobody does, ever."
)


class ShamirSeal(KeySeal):
    """The service asks for shares over a local socket (`kms unseal`), commands on the host on their terminal.

    Commands also read them from the files in KMS_SEAL_SHARE_FILES, with commas between.
    """

    name = "shamir"

    def __init__(self, settings: Settings) -> None:
        self._shares, self._threshold = settings.seal_shamir_shares, settings.seal_shamir_threshold
        self._directory = settings.seal_shares_dir
        self._files = [Path(name) for name in settings.seal_share_files.split(",") if name]
        self._opened: dict[str, Secret] = {}  # by its set; a change of the root key asks for it twice

    def create(self) -> Parameters:
        """As `Seal.create`. Hands out the shares."""
        require_possible(self._shares, self._threshold)
        require_place(
            self._directory, "Start on one, or name a directory in KMS_SEAL_SHARES_DIR for one file a share."
        )
        key = Secret(os.urandom(SEAL_KEY_BYTES))
        share_set, shares = split(key, shares=self._shares, threshold=self._threshold)
        texts = {f"kms-share-{share_set.name}-{each.number}": each.encoded() for each in shares}
        hand_out(texts, self._directory, _ABOUT.format(threshold=self._threshold, shares=self._shares))
        if self._directory is not None:
            structlog.get_logger().warning(
                f"wrote {self._shares} shares to {self._directory}: give each to another person and remove them there"
            )
        self._opened[share_set.name] = key
        return share_set.parameters()

    def seal_key(self, parameters: Parameters) -> Secret:
        """As `KeySeal.seal_key`."""
        share_set = ShareSet.of(parameters)
        if share_set.name not in self._opened:
            self._opened[share_set.name] = self._gathered(share_set)
        return self._opened[share_set.name]

    def _gathered(self, share_set: ShareSet) -> Secret:
        gathered = Gathered(share_set)
        try:
            if self._files:
                _read_files(gathered, self._files)
            elif sys.stdin.isatty():
                _ask(gathered)
            else:
                raise StartError(
                    f"The vault is sealed, and {share_set.threshold} shares of the set {share_set.name} open it. "
                    "Give them on a terminal, or name files (KMS_SEAL_SHARE_FILES, --share-file)."
                )
            return gathered.secret()
        finally:
            gathered.forget()


def _read_files(gathered: Gathered, files: list[Path]) -> None:
    for path in files:
        share = read_share(path)
        if share.set_id == gathered.of.set_id and not gathered.is_enough:  # others are for another seal
            gathered.add(share)
    if not gathered.is_enough:
        raise StartError(
            f"{gathered.of.threshold} shares of the set {gathered.of.name} are needed, and the files hold "
            f"{len(gathered)}."
        )


def read_share(path: Path) -> Share:
    """The share in a file that others cannot read. Raises StartError, which names the file."""
    try:
        return Share.decoded(private_bytes(path).decode("utf-8", "replace"))
    except ShareRefused as refused:
        raise ShareRefused(f"{path}: {refused}") from None


def _ask(gathered: Gathered) -> None:
    """Ask for shares on the terminal, without echo, until there are enough."""
    while not gathered.is_enough:
        asked = f"Share of the set {gathered.of.name} ({len(gathered) + 1} of {gathered.of.threshold}): "
        text = getpass.getpass(asked)
        if not text.strip():
            raise StartError("No share was given. Nothing was done.")
        try:
            gathered.add(Share.decoded(text))
        except ShareRefused as refused:
            print(refused, file=sys.stderr)
