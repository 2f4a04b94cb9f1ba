"""A library for programs that use keys of the service; it needs none of the packages that the service needs.

    from kms.client import Client

    with Client("https://kms.example.org:8443", ca="ca.pem", client_id="shop", private_key="shop.key") as kms:
        ciphertext = kms.encrypt("orders", b"4711", associated_data=b"customer 42")

Errors are in `kms.client.errors`, envelope encryption in `kms.client.envelope`, encrypted files in
`kms.client.files`, columns of databases in `kms.client.sqlalchemy` and `kms.client.django`.
"""

from kms.client.client import Client
from kms.client.envelope import Envelope
from kms.client.errors import KmsError, Refused

__all__ = ["Client", "Envelope", "KmsError", "Refused"]
