"""The wrapping key in another KMS, which has to answer whenever the vault is unsealed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from kms.config import Settings
from kms.errors import StartError
from kms.vault.seals.base import Parameters
from kms.vault.seals.envelope import EnvelopeSeal
from kms.vault.seals.remote import RemoteKms
from kms.vault.seals.remote_aws import AwsKms
from kms.vault.seals.remote_transit import TransitKms

_APIS: dict[str, type[AwsKms] | type[TransitKms]] = {"aws": AwsKms, "vault": TransitKms}
_ANY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104


class KmsSeal(EnvelopeSeal):
    """A key of KMS_SEAL_KMS_KEY at KMS_SEAL_KMS_URL, by the API of AWS KMS or of OpenBao and Vault."""

    name = "kms"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def create(self) -> Parameters:
        """As `Seal.create`. The key must be there already."""
        with self._opened() as holder:
            return {"api": str(self._settings.seal_kms_api), "key": holder.key_name()}

    @contextmanager
    def opened(self, parameters: Parameters) -> Iterator[AwsKms | TransitKms]:
        """As `EnvelopeSeal.opened`."""
        api = self._settings.seal_kms_api
        if api is not None and api != parameters.get("api"):
            raise StartError(
                f"The vault was sealed by the API `{parameters.get('api')}` of another KMS, with the key "
                f"{parameters.get('key')}, and KMS_SEAL_KMS_API is `{api}`."
            )
        with self._opened() as holder:
            yield holder

    @contextmanager
    def _opened(self) -> Iterator[AwsKms | TransitKms]:
        settings = self._settings
        if not settings.seal_kms_url or settings.seal_kms_api is None or not settings.seal_kms_key:
            raise StartError(
                "The seal `kms` needs KMS_SEAL_KMS_URL, KMS_SEAL_KMS_API (`aws` or `vault`) and KMS_SEAL_KMS_KEY."
            )
        remote = RemoteKms(settings.seal_kms_url, settings.seal_kms_ca, settings.seal_kms_wait.total_seconds())
        _require_another(remote, settings)
        holder = _APIS[settings.seal_kms_api](remote, settings.seal_kms_key, settings)
        try:
            yield holder
        finally:
            if isinstance(holder, TransitKms):
                holder.leave()


def _require_another(remote: RemoteKms, settings: Settings) -> None:
    """Raise StartError where the other KMS is this very service, which answers only after it is unsealed."""
    host, _, port = remote.name.rpartition(":")
    public = urlsplit(settings.origin)
    own_names = {f"{public.netloc if public.port else f'{public.netloc}:443'}"}
    if remote.name in own_names or (int(port) == settings.port and _is_own(host.strip("[]"), settings.host)):
        raise StartError(
            f"KMS_SEAL_KMS_URL leads to this very service ({remote.name}), which cannot unseal itself: name another."
        )


def _is_own(host: str, listens_on: str) -> bool:
    """Whether an address of `host` is one that a service which listens on `listens_on` answers at."""
    asked = _addresses(host)
    if listens_on in _ANY_ADDRESS:
        return any(map(_is_local, asked))
    return bool(asked & _addresses(listens_on))


def _addresses(host: str) -> set[tuple[int, str]]:
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return {(int(family), str(address[0])) for family, _, _, _, address in found}
    return set()


def _is_local(address: tuple[int, str]) -> bool:
    """Whether this host has the address: only then can a socket be bound to it."""
    with suppress(OSError), socket.socket(address[0], socket.SOCK_STREAM) as probe:
        probe.bind((address[1], 0))
        return True
    return False
