"""Addresses and networks of callers. An IPv4-mapped IPv6 address counts as the IPv4 address."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def address(text: str) -> Address | None:
    """The address that `text` is, without its zone; None where it is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return unmapped(found)


def unmapped(found: Address) -> Address:
    """The address of IPv4 that is written in one of IPv6; any other as it is."""
    return getattr(found, "ipv4_mapped", None) or found


def network(text: str, *, strict: bool = True) -> Network:
    """The network that `text` is. Raises ValueError, with `strict` also for an address within a network."""
    found = ipaddress.ip_network(text, strict=strict)
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        mapped = found.network_address.ipv4_mapped
        assert mapped is not None
        return ipaddress.IPv4Network((mapped, found.prefixlen - _MAPPED.prefixlen))
    return found
