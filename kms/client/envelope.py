"""Envelope encryption in this process: the service is asked for data keys only, and sees no plaintext."""

from __future__ import annotations

import io
from collections.abc import Mapping

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from kms.client.client import Client
from kms.client.data_keys import DataKeyCache, Limits
from kms.client.envelope_format import DATA_KEY_BITS, Header, encoded_context, read_header
from kms.client.errors import NotAnEnvelope, NotAuthentic
from kms.client.uses import DataKey


class Envelope:
    """Encrypts and decrypts messages under data keys of the key `key_id`, in the format of `envelope_format`.

    `context` is bound to each data key and stands in clear in each message; grants of the service can demand it. Data
    keys are kept within `limits`.
    """

    def __init__(
        self, client: Client, key_id: str, *, context: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> None:
        self.client, self.key_id = client, key_id
        self.cache = DataKeyCache(limits or Limits())
        self._context = encoded_context(context)

    def encrypt(self, plaintext: bytes, associated_data: bytes = b"") -> bytes:
        """The message in the envelope format; `associated_data` is not in it and must be given again to decrypt."""
        data_key = self.cache.to_encrypt(self._context, len(plaintext), self._made)
        header = Header(self.key_id, self._context, data_key.ciphertext)
        encryptor = Cobblestone256Encryptor(data_key.plaintext, header.bound(associated_data))
        return header.packed() + encryptor.update(plaintext) + encryptor.finalize()

    def decrypt(self, message: bytes, associated_data: bytes = b"") -> bytes:
        """What was encrypted, by any version of the key.

        Raises NotAnEnvelope, NotAuthentic where message or associated data were altered or the context is another
        one, and what the service says, such as KeyRevoked.
        """
        stream = io.BytesIO(message)
        header = read_header(stream.read)
        if header.key_id != self.key_id or header.context != self._context:
            raise NotAuthentic(f"The message was not encrypted under {self.key_id} for this context.")

        def unwrap() -> bytes:
            return self.client.decrypt(self.key_id, header.wrapped_key, header.context)

        decryptor = Cobblestone256Decryptor(
            self.cache.to_decrypt(header.wrapped_key, header.context, unwrap), header.bound(associated_data)
        )
        try:
            return decryptor.update(message[stream.tell() :]) + decryptor.finalize()
        except (InvalidTag, ValueError):
            raise NotAuthentic("The message was altered, or its associated data is another one.") from None

    def rewrap(self, message: bytes) -> bytes:
        """The message with its data key under the latest version; its body stays as it is."""
        stream = io.BytesIO(message)
        header = read_header(stream.read)
        if header.key_id != self.key_id:
            raise NotAnEnvelope(f"The message was not encrypted under {self.key_id}.")
        wrapped = self.client.rewrap(self.key_id, header.wrapped_key, header.context)
        return header.rewrapped(wrapped).packed() + message[stream.tell() :]

    def _made(self) -> DataKey:
        return self.client.data_key(self.key_id, DATA_KEY_BITS, self._context)
