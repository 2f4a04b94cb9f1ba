"""Keys on their way in and out: RSA_AES_KEY_WRAP_SHA_256 (CKM_RSA_AES_KEY_WRAP of PKCS #11).

That is RSA-OAEP with SHA-256 of a fresh AES-256 key, followed by the key itself under AES-KWP (SP 800-38F).
"""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from kms.client.client import Client
from kms.client.errors import NotAuthentic
from kms.client.keys import Key

ALGORITHM = "RSA_AES_KEY_WRAP_SHA_256"
_OAEP = OAEP(MGF1(SHA256()), SHA256(), None)
_RECIPIENT_BITS = 3072


def import_key(client: Client, key_id: str | None, type: str, material: bytes, **members: object) -> Key:
    """Bring a key of one's own: raw bytes for a symmetric type, PKCS #8 (DER) for a pair. It travels wrapped."""
    made = client.call("create_wrapping_key", algorithm=ALGORITHM)
    public = load_pem_public_key(made["public_key"].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    kek = os.urandom(32)
    wrapped = public.encrypt(kek, _OAEP) + aes_key_wrap_with_padding(kek, material)
    given = {"wrapping_key_id": made["wrapping_key_id"], "wrapped_key": wrapped, "type": type, **members}
    return client.key(client.call("import_key", **given, **({"key_id": key_id} if key_id else {}))["key_id"])


def export_key(client: Client, key_id: str, version: int | None = None) -> tuple[str, bytes]:
    """Take an exportable key along: its format (`raw` or `pkcs8`) and its material, which travels wrapped."""
    recipient = rsa.generate_private_key(65537, _RECIPIENT_BITS)
    public = recipient.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    chosen = {} if version is None else {"version": version}
    answer = client.call("export_key", key_id=key_id, recipient_public_key=public, algorithm=ALGORITHM, **chosen)
    wrapped = base64.b64decode(answer["wrapped_key"])
    length = recipient.key_size // 8
    try:
        kek = recipient.decrypt(wrapped[:length], _OAEP)
        return answer["format"], aes_key_unwrap_with_padding(kek, wrapped[length:])
    except (ValueError, InvalidUnwrap):
        raise NotAuthentic("The key did not come as it was sent.") from None
