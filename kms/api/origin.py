"""Determines the source address and the client certificate of a request, before any other code looks at it.

Headers of proxies are believed only if the peer is a trusted proxy, and are removed from the request here. All other
code reads `REMOTE_ADDR` and `presented_certificate`, and does not need to know about proxies.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

from kms import errors
from kms.access.addresses import Address
from kms.api import forwarded, problems
from kms.api.fast_path import STATUS, Environ, StartResponse, WsgiApp
from kms.api.headers import request_headers, security_headers
from kms.config import Network
from kms.operations import Call, Service, new_request_id

_FORWARDED, _X_FORWARDED_FOR = "HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR"
_CLIENT_CERT, _CLIENT_CERT_CHAIN = "HTTP_CLIENT_CERT", "HTTP_CLIENT_CERT_CHAIN"
_CERTIFICATE, _CHAIN = "kms.client_certificate", "kms.client_certificate_chain"  # no header is named so
_SOCKET = "gunicorn.socket"


class PresentedCertificate(NamedTuple):
    """A certificate whose key the client of this request has shown to have. Who vouches for it was not looked at."""

    leaf: bytes
    """In DER."""
    chain: list[bytes]
    """The intermediates that came with it, each in DER."""


def presented_certificate(environ: Environ) -> PresentedCertificate | None:
    """The certificate of a request, from TLS or from a trusted proxy; `kms.access.certificates` reads its client."""
    leaf = environ.get(_CERTIFICATE)
    return None if leaf is None else PresentedCertificate(leaf, environ[_CHAIN])


def with_origin(next_app: WsgiApp, service: Service) -> WsgiApp:
    """`next_app` behind an OriginMiddleware, where the settings give it something to do."""
    settings = service.settings
    if not settings.proxy_networks and settings.client_ca is None:
        return next_app
    return OriginMiddleware(next_app, service)


@dataclass
class OriginMiddleware:
    """A WSGI application in front of all others."""

    next_app: WsgiApp
    service: Service

    def __post_init__(self) -> None:
        settings = self.service.settings
        self._takes_certificates = settings.client_ca is not None
        self._is_trusted = lru_cache(maxsize=4096)(_is_in(settings.proxy_networks))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Settle the origin of the request and have it served, or refuse what a trusted proxy would not write."""
        began = time.perf_counter()
        said = [environ.pop(name, None) for name in (_FORWARDED, _X_FORWARDED_FOR, _CLIENT_CERT, _CLIENT_CERT_CHAIN)]
        peer = _peer(environ.get("REMOTE_ADDR"))
        try:
            if peer is not None:
                is_proxy = self._is_trusted(peer)
                source = self._source(peer, said[0], said[1]) if is_proxy else peer
                environ["REMOTE_ADDR"] = str(source)
                if self._takes_certificates:
                    # A trusted proxy's own certificate is never that of the clients behind it.
                    found = _passed_on(said[2], said[3]) if is_proxy else _of_connection(environ.get(_SOCKET))
                    if found is not None:
                        environ[_CERTIFICATE], environ[_CHAIN] = found
        except errors.MalformedRequest as refusal:
            return self._refused(refusal, environ, start_response, began)
        return self.next_app(environ, start_response)

    def _source(self, proxy: Address, in_forwarded: str | None, in_x_forwarded_for: str | None) -> Address:
        """The nearest address that is no trusted proxy's.

        Raises MalformedRequest. To take the proxy's own address instead would let strangers be counted, and let in,
        as the proxy is.
        """
        try:
            sources = [
                self._nearest(proxy, read(value))
                for read, value in (
                    (forwarded.forwarded, in_forwarded),
                    (forwarded.x_forwarded_for, in_x_forwarded_for),
                )
                if value is not None
            ]
        except ValueError:
            raise errors.MalformedRequest(
                "The proxy in front of the service does not say in Forwarded or X-Forwarded-For from which address "
                "this request comes."
            ) from None
        if len({*sources}) > 1:
            raise errors.MalformedRequest(
                "Forwarded and X-Forwarded-For name different addresses. The proxy in front of the service must set "
                "one of them and clear the other."
            )
        return sources[0] if sources else proxy  # a request of the proxy itself

    def _nearest(self, proxy: Address, hops: Iterator[Address]) -> Address:
        farthest = proxy
        for farthest in hops:
            if not self._is_trusted(farthest):
                break
        return farthest

    def _refused(
        self, refusal: errors.Refusal, environ: Environ, start_response: StartResponse, began: float
    ) -> Iterable[bytes]:
        call = Call("unknown", environ.get("REMOTE_ADDR") or "unknown", new_request_id())
        seconds = time.perf_counter() - began
        self.service.metrics.count(call.operation, refusal.problem, seconds)
        problems.log_answer(call, refusal.problem, refusal.status, seconds)
        body, headers = problems.encoded(refusal, call.request_id)
        headers += [*security_headers(environ.get("HTTP_HOST", "")), *request_headers(call)]
        start_response(STATUS[refusal.status], [*headers, ("Content-Length", str(len(body)))])
        return [body]


def _is_in(networks: Iterable[Network]) -> Callable[[Address], bool]:
    return lambda address: any(address in network for network in networks)


@lru_cache(maxsize=4096)
def _peer(text: str | None) -> Address | None:
    """The address of the other end of a connection; None where the server does not know it."""
    try:
        return forwarded.address_of((text or "").partition("%")[0])  # without the zone of a link-local one
    except ValueError:
        return None


def _passed_on(leaf: str | None, chain: str | None) -> PresentedCertificate | None:
    """The certificate that a trusted proxy passes on. Raises MalformedRequest."""
    if not leaf:
        return None
    try:
        return PresentedCertificate(forwarded.certificate(leaf), forwarded.certificates(chain) if chain else [])
    except ValueError:
        raise errors.MalformedRequest(
            "The proxy in front of the service does not write Client-Cert or Client-Cert-Chain as RFC 9440 has it."
        ) from None


def _of_connection(connection: Any) -> PresentedCertificate | None:
    """The certificate that TLS has verified, from the server that shows its connections."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    leaf = connection.getpeercert(binary_form=True)
    if leaf is None:
        return None
    return PresentedCertificate(leaf, _chain_of(connection)[1:])


def _chain_of(connection: Any) -> list[bytes]:
    """What the client sent: the certificate and its intermediates, in DER."""
    if hasattr(connection, "get_unverified_chain"):  # from Python 3.13 on
        return cast("list[bytes]", connection.get_unverified_chain())
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in connection._sslobj.get_unverified_chain() or ()]
