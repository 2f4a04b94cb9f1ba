"""Every key type there is, in one list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.serialization import load_der_private_key

from kms.crypto import elliptic, pkcs8, rsa, symmetric
from kms.crypto.agreement import AgreementGroup
from kms.crypto.dh import FiniteFieldGroup
from kms.crypto.montgomery import X25519Group
from kms.errors import OperationNotSupported
from kms.keys.model import Usage


@dataclass(frozen=True)
class KeyType:
    """How keys of one type are made, loaded and used.

    `generate` gives private material: raw bytes for symmetric keys, PKCS#8 DER for the others. `load` turns
    it into an object that implements the primitives of `kms.crypto.primitives`.
    """

    name: str
    usages: frozenset[Usage]
    generate: Callable[[], bytes]
    load: Callable[[bytes], object]
    asymmetric: bool = True
    slow: bool = False

    def public_key(self, material: bytes) -> bytes | None:
        """The public half of `material` as SubjectPublicKeyInfo DER, or None for symmetric types."""
        if not self.asymmetric:
            return None
        return pkcs8.public_der(load_der_private_key(material, None, unsafe_skip_rsa_key_validation=True))


_ENCRYPTING = frozenset({Usage.ENCRYPT, Usage.DECRYPT})
_SIGNING = frozenset({Usage.SIGN, Usage.VERIFY})
_AGREEING = frozenset({Usage.AGREE})

AGREEMENT_GROUPS: dict[str, AgreementGroup] = {
    group.name: group for group in (*map(FiniteFieldGroup, (2048, 3072, 4096, 6144, 8192)), X25519Group())
}

_ALL = [
    KeyType("xaes-256-gcm", _ENCRYPTING, symmetric.generate, symmetric.Xaes256Gcm, asymmetric=False),
    *(
        KeyType(f"rsa-{bits}", _ENCRYPTING | _SIGNING, partial(rsa.generate, bits), rsa.RsaKey, slow=True)
        for bits in (2048, 3072, 4096)
    ),
    *(
        KeyType(
            f"ec-{curve.lower().replace('-', '')}",
            _SIGNING,
            partial(elliptic.generate, curve),
            elliptic.EcdsaKey,
        )
        for curve in elliptic.CURVES
    ),
    *(KeyType(group.name, _AGREEING, group.generate, bytes) for group in AGREEMENT_GROUPS.values()),
]

KEY_TYPES: dict[str, KeyType] = {key_type.name: key_type for key_type in _ALL}


def key_type(name: str) -> KeyType:
    """The key type of that name. Raises OperationNotSupported."""
    try:
        return KEY_TYPES[name]
    except KeyError:
        raise OperationNotSupported(f"There is no key type {name!r}; choose of {', '.join(KEY_TYPES)}.") from None
