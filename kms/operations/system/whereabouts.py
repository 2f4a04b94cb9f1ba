"""Addresses to decide past requests with, where audit entries show only a network, or nothing, of the caller's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kms.access import addresses
from kms.access.addresses import Network
from kms.access.model import Grant
from kms.audit.disclosure import HASHED, NOT_SHOWN

_EVERYWHERE = (addresses.network("0.0.0.0/0"), addresses.network("::/0"))
_SOURCE_CONDITION = "aws:sourceip"


def named_networks(grants: Iterable[Grant], policy: str) -> frozenset[Network]:
    """The networks that conditions of the grants name, and those of an AWS key policy (JSON, or empty)."""
    found = {addresses.network(each) for grant in grants for each in grant.source}
    return frozenset(found | set(_in_policy(json.loads(policy)) if policy else ()))


def addresses_in(source: str, named: frozenset[Network]) -> list[str]:
    """Addresses that the caller can have had, of which the conditions decide all others alike.

    `source` is what the entry shows. Of a network, one address for each part of it that the networks in `named`
    distinguish.
    """
    within = _networks_of(source)
    if not within:
        return [source]
    found = []
    for network in within:
        found.append(network.network_address)
        for other in named:
            if other.version == network.version and other.overlaps(network):
                begins, ends = int(other.network_address), int(other.broadcast_address) + 1
                first = int(network.network_address)
                found += [
                    network[each - first] for each in (begins, ends) if 0 <= each - first < network.num_addresses
                ]
    return [str(each) for each in dict.fromkeys(found)]


def _networks_of(source: str) -> tuple[Network, ...]:
    if source == NOT_SHOWN or source.startswith(HASHED):
        return _EVERYWHERE
    try:
        return (addresses.network(source),) if "/" in source else ()
    except ValueError:
        return ()


def _in_policy(part: Any) -> Iterator[Network]:
    """The networks in conditions about the address. A policy that is kept was found to be well-formed."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name.lower() == _SOURCE_CONDITION:
                for each in value if isinstance(value, list) else [value]:
                    yield from _network_in(each)
            else:
                yield from _in_policy(value)
    elif isinstance(part, list):
        for each in part:
            yield from _in_policy(each)


def _network_in(value: Any) -> Iterator[Network]:
    try:
        yield addresses.network(str(value), strict=False)
    except ValueError:  # as `Null` has, or a condition of a statement that is about nobody
        return
