"""An empty database where a vault was: no new vault is made there, which would take the place of what was lost.

The host's file about a vault (see `host`) outlives the database, and says where the vault was opened. It is made
after the first commit of a vault, so a start that was cut off before that leaves none. A restore makes it before its
commit, but puts what it has seen into it afterwards.
"""

from __future__ import annotations

from pathlib import Path

from kms.config import Settings
from kms.errors import StartError
from kms.vault.database import file_of, place_of, shown
from kms.vault.host import vaults_seen


def require_file(settings: Settings) -> None:
    """Raise StartError if the file of the database of `settings` is not there and a vault was in it.

    To be called before the database is opened, which would put an empty file there.
    """
    lost = _lost(settings)  # first: another process may be making the first vault, and its file with it
    file = file_of(settings.database)
    if lost and file is not None and not file.exists():
        raise _refusal(settings, lost)


def require_none_lost(settings: Settings) -> None:
    """Raise StartError if a vault was in the database of `settings`.

    To be called once it is certain that none is there now, by whoever holds the lock under which one is made.
    """
    if lost := _lost(settings):
        raise _refusal(settings, lost)


def _lost(settings: Settings) -> list[Path]:
    """The host's files about vaults that were in the database of `settings`, or may have been."""
    place = place_of(settings.database, settings.data_dir)
    return [path for path, places in vaults_seen(settings.data_dir) if not places or place in places]


def _refusal(settings: Settings, lost: list[Path]) -> StartError:
    names = " and ".join(str(path) for path in lost)
    return StartError(
        f"There is no vault in {shown(settings.database)}, but this host has opened one there: {names} is about it. "
        "Put the database back, or restore a backup with `python -m kms vault restore FILE`. No new vault was made "
        f"in its place. Only if you want one, without the keys of the old one: move {names} away and start again."
    )
