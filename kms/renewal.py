"""The TLS pair that is served, and what takes its place while the service runs."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from kms import listening, tls
from kms.clock import steady_seconds
from kms.config import Settings
from kms.errors import StartError
from kms.files import FileIdentity, identity_of

_SETTLING_SECONDS = 1.5


class Renewal:
    """The pair that the workers serve with, and newer ones as they are put in its place.

    `settings` name the files. They are looked at through links, as where a secret is mounted.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen = self._tried = self._look()
        self._looked_at = steady_seconds()
        self.pair = served_pair(settings)

    def renew(self, *, asked: bool) -> bool:
        """Load the pair from the files if they changed and settled, or if `asked`; returns whether it is now in use.

        If the new pair is unusable, that is logged once, and the old pair stays in use.
        """
        if not asked and not self._is_new():
            return False
        self._tried = self._look()
        try:
            pair = served_pair(self._settings)
        except (StartError, OSError) as error:
            structlog.get_logger().error(f"the old certificate stays in use: {error}")
            return False
        self.pair.close()
        self.pair = pair
        return True

    def _is_new(self) -> bool:
        """Whether others are there than were tried. Both files are written one after the other, so wait a little."""
        now, files = steady_seconds(), self._look()
        if files != self._seen:
            self._seen, self._looked_at = files, now
        return files != self._tried and now - self._looked_at >= _SETTLING_SECONDS

    def _look(self) -> list[FileIdentity]:
        return _files(self._settings.tls_cert, self._settings.tls_key)


def _files(*paths: Path | None) -> list[FileIdentity]:
    return [identity_of(path) for path in paths if path is not None]


def served_pair(settings: Settings) -> tls.ServedPair:
    """The pair of the settings, if Granian serves it. Raises StartError."""
    pair = tls.checked_pair(settings)
    served = tls.ServedPair.of(pair, settings.run_dir)
    if not listening.is_taken(settings, served):
        served.close()
        raise StartError(
            f"{settings.tls_cert} cannot be served with this key ({pair.kind}). Use one on P-256 or P-384, Ed25519, "
            "or RSA of 2048, 3072 or 4096 bits with the exponent 65537."
        )
    return served


def require_served(settings: Settings) -> None:
    """Raise StartError with the reason where the pair of the settings cannot be served."""
    tls.server_context(settings)  # names more reasons
    served_pair(settings).close()


def context_in_force(settings: Settings) -> ssl.SSLContext:
    """The context of the newest files of the settings that were good, for servers that ask each time.

    Where there is a `client_ca` it asks clients for a certificate. Raises StartError where no files were good.
    """
    global _last
    files = _files(settings.tls_cert, settings.tls_key, settings.client_ca)
    if _last is None or _last[0] != files:
        try:
            context = tls.server_context(settings)
            if settings.client_ca is not None:
                tls.ask_for_certificates(context, settings.client_ca)
            _last = files, context
        except StartError as error:
            if _last is None:
                raise
            structlog.get_logger().error(f"the old certificate stays in use: {error}")
            _last = files, _last[1]
    return _last[1]


_last: tuple[list[FileIdentity], ssl.SSLContext] | None = None
