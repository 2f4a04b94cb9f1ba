"""Carrying out operations for a dialect: each with its own audit entry, under the request id of the request."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from kms.access.ratelimit import RateClass, identity
from kms.api.admission import Admission
from kms.operations import OPERATIONS, Call, Items, Request, Service, perform


@dataclass(frozen=True)
class Asker:
    """A request of a dialect, and the operations that come of it."""

    service: Service
    call: Call
    admission: Admission

    def slow(self) -> AbstractContextManager[None]:
        """Hold one of the threads that what takes long may have. Raises Unavailable."""
        return self.admission.slow()

    def make_key(self, request: Request) -> None:
        """Make a key on the way to something else, at the cost of making one. Raises Refusal."""
        caller = self.call.known_caller
        self.service.rate_limits.hit(RateClass.GENERATE, identity(caller, self.call.source))
        with self.admission.of_client(caller.client_id):
            self.do("create_key", request)

    def do(self, operation: str, request: Request | Items, **path: str) -> Any:
        """Carry out one of the operations. Raises Refusal."""
        call = Call(operation, self.call.source, self.call.request_id, self.call.caller)
        declared = OPERATIONS[operation]
        try:
            if declared.slow:
                with self.slow():
                    return perform(self.service, declared, call, lambda: request, path)
            return perform(self.service, declared, call, lambda: request, path)
        finally:
            self.call.recorded = call.recorded
