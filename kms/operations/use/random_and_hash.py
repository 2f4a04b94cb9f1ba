"""Operations without a key: random bytes and digests."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.hashing import DIGESTS, digest
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.service import Call, Service

DigestName = Literal[
    "SHA-224", "SHA-256", "SHA-384", "SHA-512", "SHA3-224", "SHA3-256", "SHA3-384", "SHA3-512"
]  # the names of DIGESTS  # fmt: skip


class RandomRequest(Request):
    """How many bytes."""

    length: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 32


class RandomAnswer(Answer):
    """Bytes from the system's random generator."""

    random: bytes


class HashRequest(Request):
    """What to hash."""

    message: bytes
    algorithm: DigestName = "SHA-256"


class HashAnswer(Answer):
    """The digest of the message."""

    algorithm: str
    digest: bytes


@operation(
    "POST",
    "/api/v1/random",
    permission=Permission.PRIMITIVES_USE,
    rate_class=RateClass.USE,
    request=RandomRequest,
    checked_upfront=True,
    hot=True,
    batched=True,
    example={"length": 16},
)
def random(service: Service, call: Call, request: RandomRequest) -> RandomAnswer:
    """Give random bytes."""
    return RandomAnswer(random=os.urandom(request.length))


@operation(
    "POST",
    "/api/v1/hash",
    permission=Permission.PRIMITIVES_USE,
    rate_class=RateClass.USE,
    request=HashRequest,
    checked_upfront=True,
    hot=True,
    batched=True,
    example={"message": "aGVsbG8=", "algorithm": "SHA3-256"},
)
def hash_message(service: Service, call: Call, request: HashRequest) -> HashAnswer:
    """Give the digest of a message."""
    return HashAnswer(algorithm=request.algorithm, digest=digest(DIGESTS[request.algorithm], request.message))
