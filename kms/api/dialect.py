"""Carrying out operations for a dialect: each with its own audit entry, under the request id of the request."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from kms.access.decision import may_see_key
from kms.access.ratelimit import RateClass, identity
from kms.api.admission import Admission
from kms.keys.model import Key
from kms.operations import OPERATIONS, BatchItems, Call, Request, Service, execute_operation


@dataclass
class DialectRequest:
    """A request of a dialect, and the operations that come of it. `dialect` is what the dialect is called."""

    service: Service
    call: Call
    admission: Admission
    dialect: ClassVar[str]

    def visible_key(self, name: str) -> Key | None:
        """The key of that id or alias, if there is one and the caller may know of it."""
        key = self.service.key_cache.find(name)
        return (
            key if key and may_see_key(self.call.known_caller, key, self.service.circumstances(self.call)) else None
        )

    def slow(self) -> AbstractContextManager[None]:
        """Hold one of the threads that what takes long may have. Raises Unavailable."""
        return self.admission.slow()

    def make_key(self, request: Request) -> None:
        """Make a key as a part of another operation; it counts towards the limit for making keys. Raises Refusal."""
        caller = self.call.known_caller
        self.service.rate_limits.hit(RateClass.GENERATE, identity(caller, self.call.source))
        with self.admission.working(caller.client_id):
            self.run("create_key", request)

    def run(self, operation: str, request: Request | BatchItems, **path: str) -> Any:
        """Carry out one of the operations. Raises Refusal."""
        call = Call(operation, self.call.source, self.call.request_id, self.call.caller, action=self.call.action)
        call.dialect = self.dialect
        declared = OPERATIONS[operation]
        try:
            if not declared.slow:
                return execute_operation(self.service, declared, call, lambda: request, path)
            with self.slow():
                return execute_operation(self.service, declared, call, lambda: request, path)
        finally:
            self.call.recorded, self.call.leaf = call.recorded, call.leaf or self.call.leaf
