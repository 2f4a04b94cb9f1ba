"""Every key type there is, in one list: the only place to touch for another one."""

from __future__ import annotations

from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, mldsa, mlkem, x448, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from kms.crypto import derived, dh, edwards, elliptic, goodkey, montgomery, rsa, symmetric, xwing
from kms.crypto.hpke import HpkeKey
from kms.crypto.keytype import KeyPairType, KeyType, SecretKeyType
from kms.crypto.keywrap import AesKw, AesKwp
from kms.crypto.mac import HmacKey
from kms.crypto.mldsa import MlDsaKey
from kms.crypto.mlkem import MlKemKey
from kms.crypto.quantum import broken_by_shor, by_key_search, standardised
from kms.errors import OperationNotSupported
from kms.keys.model import Usage

_AEAD = (frozenset({Usage.ENCRYPT, Usage.DECRYPT, Usage.WRAP, Usage.UNWRAP}),)
_IN_CONTEXT = (frozenset({Usage.ENCRYPT, Usage.DECRYPT}),)
_WRAPPING = (frozenset({Usage.WRAP, Usage.UNWRAP}),)
_MAC = (frozenset({Usage.MAC, Usage.VERIFY_MAC}), frozenset({Usage.DERIVE}))
_SIGNING = frozenset({Usage.SIGN, Usage.VERIFY})
_AGREEING = frozenset({Usage.AGREE})
_HPKE = frozenset({Usage.SEAL, Usage.OPEN})
_KEM = frozenset({Usage.ENCAPSULATE, Usage.DECAPSULATE})

_RANDOM_NONCE_LIMIT = 1 << 32  # SP 800-38D, section 8.3: 96-bit nonces drawn at random
_CHACHA = by_key_search(256, "as AES-256, because the key is as long: NIST does not speak of ChaCha20")
_CURVES = "SP 800-57 part 1 rev. 5, table 2"
_EC_BITS = {"P-256": 256, "P-384": 384, "P-521": 521, "secp256k1": 256}
_SHORTEST_HMAC_KEY = 14  # 112 bits: SP 800-131A rev. 2, section 10


def _is(*kinds: type) -> Any:
    return lambda key: isinstance(key, kinds)


_ALL: list[KeyType] = [
    SecretKeyType(
        name="xaes-256-gcm",
        title="XAES-256-GCM with 192-bit nonces, the default",
        standard="C2SP XAES-256-GCM",
        purposes=_AEAD,
        primitive=symmetric.Xaes256Gcm,
        strength=by_key_search(256),
        key_bytes=32,
    ),
    *(
        SecretKeyType(
            name=f"aes-{bits}-gcm",
            title=f"AES-{bits} in Galois/counter mode, 96-bit nonces",
            standard="SP 800-38D",
            purposes=_AEAD,
            primitive=symmetric.AesGcm,
            strength=by_key_search(bits),
            key_bytes=bits // 8,
            message_limit=_RANDOM_NONCE_LIMIT,
        )
        for bits in (128, 256)
    ),
    SecretKeyType(
        name="aes-256-gcm-siv",
        title="AES-256-GCM-SIV: a nonce that repeats does little harm",
        standard="RFC 8452",
        purposes=_AEAD,
        primitive=symmetric.AesGcmSiv,
        strength=by_key_search(256),
        key_bytes=32,
    ),
    SecretKeyType(
        name="aes-256-siv",
        title="AES-256-SIV: deterministic, equal plaintexts give equal ciphertexts",
        standard="RFC 5297",
        purposes=_AEAD,
        primitive=symmetric.AesSiv,
        strength=by_key_search(256, "of its two keys of 256 bits, one encrypts"),
        key_bytes=64,
    ),
    SecretKeyType(
        name="chacha20-poly1305",
        title="ChaCha20-Poly1305, 96-bit nonces",
        standard="RFC 8439",
        purposes=_AEAD,
        primitive=symmetric.ChaCha,
        strength=_CHACHA,
        key_bytes=32,
        message_limit=_RANDOM_NONCE_LIMIT,
    ),
    SecretKeyType(
        name="xchacha20-poly1305",
        title="XChaCha20-Poly1305, 192-bit nonces",
        standard="draft-irtf-cfrg-xchacha-03",
        purposes=_AEAD,
        primitive=symmetric.XChaCha,
        strength=_CHACHA,
        key_bytes=32,
    ),
    *(
        SecretKeyType(
            name=f"{name}-{'convergent' if convergent else 'derived'}",
            title=f"{title}, under a key for each context{', equal messages equal' if convergent else ''}",
            standard="RFC 5869, SP 800-38D" if name.startswith("aes") else "RFC 5869, RFC 8439",
            purposes=_IN_CONTEXT,
            primitive=partial(derived.DerivedCipher, aead, convergent=convergent),
            strength=by_key_search(8 * size) if name.startswith("aes") else _CHACHA,
            key_bytes=size,
            message_limit=_RANDOM_NONCE_LIMIT,
        )
        for name, title, aead, size in (
            ("aes-128-gcm", "AES-128-GCM", AESGCM, 16),
            ("aes-256-gcm", "AES-256-GCM", AESGCM, 32),
            ("chacha20-poly1305", "ChaCha20-Poly1305", ChaCha20Poly1305, 32),
        )
        for convergent in (False, True)
    ),
    *(
        SecretKeyType(
            name=f"aes-{bits}-{mode}",
            title=f"AES-{bits} key wrapping{', with padding' if mode == 'kwp' else ''}",
            standard="SP 800-38F",
            purposes=_WRAPPING,
            primitive=primitive,
            strength=by_key_search(bits),
            key_bytes=bits // 8,
        )
        for mode, primitive in (("kw", AesKw), ("kwp", AesKwp))
        for bits in (128, 256)
    ),
    *(
        SecretKeyType(
            name=f"hmac-sha{bits}",
            title=f"HMAC with SHA-{bits}; or derivation by HKDF and KBKDF",
            standard="FIPS 198-1, RFC 5869, SP 800-108r1",
            purposes=_MAC,
            primitive=partial(HmacKey, bits),
            strength=by_key_search(int(bits), "as AES, because finding the key is the best attack on HMAC"),
            key_bytes=int(bits) // 8,
            imports=range(_SHORTEST_HMAC_KEY, 513),
        )
        for bits in ("224", "256", "384", "512")
    ),
    *(
        KeyPairType(
            name=f"rsa-{bits}",
            title=f"RSA with {bits} bits: PSS and PKCS#1 v1.5 signatures, OAEP",
            standard="RFC 8017, FIPS 186-5",
            purposes=(_AEAD[0] | _SIGNING,),
            primitive=rsa.RsaKey,
            strength=broken_by_shor(strength, "SP 800-56B rev. 2"),
            bits=bits,
            slow=True,
            new=partial(rsa.generate, bits),
            is_owner_of=partial(rsa.owns, bits),
            validate=goodkey.validate,
            validate_private=goodkey.validate_private,
        )
        for bits, strength in ((2048, 112), (3072, 128), (4096, 152))
    ),
    *(
        KeyPairType(
            name=f"ec-{curve.lower().replace('-', '')}",
            title=f"Elliptic-curve keys on {curve}",
            standard="FIPS 186-5, SP 800-186" if curve.startswith("P") else "SEC 2, RFC 8812",
            purposes=(_SIGNING, _AGREEING, _HPKE) if curve.startswith("P") else (_SIGNING, _AGREEING),
            primitive=elliptic.NistEcKey if curve.startswith("P") else elliptic.EcKey,
            strength=broken_by_shor(min(_EC_BITS[curve] // 2, 256), _CURVES),
            bits=_EC_BITS[curve],
            new=generate,
            is_owner_of=partial(elliptic.owns, curve),
        )
        for curve, generate in elliptic.generate.items()
    ),
    KeyPairType(
        name="ed25519",
        title="EdDSA on edwards25519",
        standard="RFC 8032",
        purposes=(_SIGNING,),
        primitive=edwards.EddsaKey,
        strength=broken_by_shor(128, "SP 800-186"),
        bits=256,
        new=ed25519.Ed25519PrivateKey.generate,
        is_owner_of=_is(ed25519.Ed25519PublicKey),
        validate=edwards.validate,
        raw=ed25519.Ed25519PrivateKey.from_private_bytes,
    ),
    KeyPairType(
        name="ed448",
        title="EdDSA on edwards448",
        standard="RFC 8032",
        purposes=(_SIGNING,),
        primitive=edwards.EddsaKey,
        strength=broken_by_shor(224, "SP 800-186"),
        bits=456,
        new=ed448.Ed448PrivateKey.generate,
        is_owner_of=_is(ed448.Ed448PublicKey),
        validate=edwards.validate,
        raw=ed448.Ed448PrivateKey.from_private_bytes,
    ),
    KeyPairType(
        name="x25519",
        title="Diffie-Hellman on Curve25519",
        standard="RFC 7748",
        purposes=(_AGREEING, _HPKE),
        primitive=montgomery.X25519Key,
        strength=broken_by_shor(128, "RFC 7748, section 7"),
        bits=256,
        new=x25519.X25519PrivateKey.generate,
        is_owner_of=_is(x25519.X25519PublicKey),
        validate=montgomery.validate,
        raw=x25519.X25519PrivateKey.from_private_bytes,
    ),
    KeyPairType(
        name="x448",
        title="Diffie-Hellman on Curve448",
        standard="RFC 7748",
        purposes=(_AGREEING,),
        primitive=montgomery.MontgomeryKey,
        strength=broken_by_shor(224, "RFC 7748, section 7"),
        bits=448,
        new=x448.X448PrivateKey.generate,
        is_owner_of=_is(x448.X448PublicKey),
        validate=montgomery.validate,
        raw=x448.X448PrivateKey.from_private_bytes,
    ),
    *(
        KeyPairType(
            name=f"ffdhe{bits}",
            title=f"Diffie-Hellman over a finite field, {bits} bits",
            standard="RFC 7919",
            purposes=(_AGREEING,),
            primitive=dh.DhKey,
            strength=broken_by_shor(strength, "SP 800-56A rev. 3, appendix D"),
            bits=bits,
            slow=bits > 4096,
            new=partial(dh.generate, bits),
            is_owner_of=partial(dh.owns, bits),
            validate=dh.validate,
            validate_private=dh.validate_private,
            jwk=False,
            spki=dh.spki,
        )
        for bits, strength in ((2048, 112), (3072, 128), (4096, 152), (6144, 176), (8192, 200))
    ),
    *(
        KeyPairType(
            name=f"ml-kem-{size}",
            title=f"ML-KEM-{size}, post-quantum key encapsulation",
            standard="FIPS 203",
            purposes=(_KEM, _HPKE),
            primitive=MlKemKey,
            strength=standardised(classical, category, "FIPS 203, section 8"),
            bits=512,  # the seed d ‖ z: FIPS 203, section 3.3
            new=private.generate,
            is_owner_of=_is(public),
            raw=private.from_seed_bytes,
        )
        for size, classical, category, private, public in (
            (768, 192, 3, mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
            (1024, 256, 5, mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
        )
    ),
    xwing.XWingType(
        name="ml-kem-768-x25519",
        title="The hybrid of ML-KEM-768 and X25519 (X-Wing)",
        standard="RFC 9180, draft-ietf-hpke-pq",
        purposes=(_HPKE,),
        primitive=HpkeKey,
        strength=standardised(192, 3, "FIPS 203, section 8; the hybrid is at least as hard to break as ML-KEM-768"),
    ),
    *(
        KeyPairType(
            name=f"ml-dsa-{size}",
            title=f"ML-DSA-{size}, post-quantum signatures",
            standard="FIPS 204",
            purposes=(_SIGNING,),
            primitive=MlDsaKey,
            strength=standardised(classical, category, "FIPS 204, table 1"),
            bits=256,  # the seed ξ: FIPS 204, section 5.1
            new=private.generate,
            is_owner_of=_is(public),
            raw=private.from_seed_bytes,
        )
        for size, classical, category, private, public in (
            (44, 128, 2, mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
            (65, 192, 3, mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
            (87, 256, 5, mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
        )
    ),
]

KEY_TYPES: dict[str, KeyType] = {key_type.name: key_type for key_type in _ALL}


def key_type(name: str) -> KeyType:
    """The key type of that name. Raises OperationNotSupported."""
    try:
        return KEY_TYPES[name]
    except KeyError:
        raise OperationNotSupported(f"There is no key type {name!r}; choose of {', '.join(KEY_TYPES)}.") from None


def agreement_type(public: Any) -> KeyType | None:
    """The type of which `public`, a peer's loaded key, is, if two parties can agree on a secret with it."""
    return next((kind for kind in KEY_TYPES.values() if kind.every_usage >= _AGREEING and kind.owns(public)), None)
