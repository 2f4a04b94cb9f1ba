"""What proxies in front write about a request: `Forwarded` (RFC 7239), `X-Forwarded-For`, `Client-Cert` (RFC 9440).

Nothing here decides whom to believe. Everything that a proxy would not write raises ValueError.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kms.access.addresses import Address, unmapped

_LONGEST_NODE = 64
_LONGEST_CERTIFICATE = 1 << 15  # in base64 or escaped
_MOST_CERTIFICATES = 8
_NODE = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+)\](:\d{1,5})?|(?P<v4>[0-9.]+)(:\d{1,5})?|(?P<bare>[0-9A-Fa-f:.]+)", re.ASCII
)
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, section 5.6.2
_PAIR = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")')
_ESCAPED_PEM = "-----BEGIN%20CERTIFICATE"


@lru_cache(maxsize=4096)
def address_of(text: str) -> Address:
    """The address that `text` is, without a port; one of IPv4 that is written as IPv6 is of IPv4.

    IPv6 may be in brackets, and must be where a port follows. Raises ValueError, also for names and zones.
    """
    found = _NODE.fullmatch(text) if len(text) <= _LONGEST_NODE else None
    if found is None:
        raise ValueError("this is no address")
    in_brackets = found["v6"]
    address = (
        ipaddress.IPv6Address(in_brackets) if in_brackets else ipaddress.ip_address(found["v4"] or found["bare"])
    )
    return unmapped(address)


def x_forwarded_for(value: str) -> Iterator[Address]:
    """The addresses of an `X-Forwarded-For`, beginning with what the last proxy has added. Raises ValueError.

    What stands farther left was written by somebody farther away, and is read only when it is asked for.
    """
    while True:
        value, comma, last = value.rpartition(",")
        yield address_of(last.strip(" \t"))
        if not comma:
            return


def forwarded(value: str) -> Iterator[Address]:
    """The addresses of the `for` parameters of a `Forwarded`, as `x_forwarded_for` gives them. Raises ValueError.

    The whole of it is parsed first: a quotation mark that somebody farther away left open reaches to the end.
    """
    nodes = [_for(element) for element in _elements(value)]
    return map(address_of, reversed(nodes))


def _elements(value: str) -> list[list[tuple[str, str]]]:
    """The elements of a `Forwarded`: parameters in small letters, and what they say."""
    elements: list[list[tuple[str, str]]] = [[]]
    at = 0
    while True:
        at = _after_space(value, at)
        pair = _PAIR.match(value, at)
        if pair is None:
            raise ValueError("this is no Forwarded")
        name, token, quoted = pair.groups()
        elements[-1].append((name.lower(), token if token is not None else re.sub(r"\\(.)", r"\1", quoted)))
        at = _after_space(value, pair.end())
        if at == len(value):
            return elements
        if value[at] == ",":
            elements.append([])
        elif value[at] != ";":
            raise ValueError("this is no Forwarded")
        at += 1


def _after_space(value: str, at: int) -> int:
    while at < len(value) and value[at] in " \t":
        at += 1
    return at


def _for(element: list[tuple[str, str]]) -> str:
    """The node that an element is about; no address where it does not say, or says it twice."""
    nodes = [value for name, value in element if name == "for"]
    return nodes[0] if len(nodes) == 1 else ""


def certificate(value: str) -> bytes:
    """The certificate in a `Client-Cert`, in DER: a byte sequence (RFC 8941, section 3.3.5), or PEM in escapes.

    nginx cannot write the former, and writes the latter as `$ssl_client_escaped_cert`. Raises ValueError.
    """
    if len(value) > _LONGEST_CERTIFICATE:
        raise ValueError("this certificate is too long")
    if value.startswith(_ESCAPED_PEM):
        return x509.load_pem_x509_certificate(unquote_to_bytes(value)).public_bytes(Encoding.DER)
    if len(value) < 3 or value[0] != ":" or value[-1] != ":":
        raise ValueError("this is no byte sequence")
    return base64.b64decode(value[1:-1], validate=True)


def certificates(value: str) -> list[bytes]:
    """The certificates in a `Client-Cert-Chain`, each in DER. Raises ValueError."""
    written = value.split(",", _MOST_CERTIFICATES)
    if len(written) > _MOST_CERTIFICATES:
        raise ValueError("these are too many certificates")
    return [certificate(each.strip(" \t")) for each in written]
