"""Whether this worker carries out uses of keys now: each condition that a use asks for, and nothing else.

A condition that is added to the way of a use belongs here too: `/readyz` answers 503 with the reason whenever uses
are refused, and load balancers go by that. What is refused to one caller or for one key alone is no such condition.
"""

from __future__ import annotations

from collections.abc import Callable

from kms.operations.core.service import Service


def _lease(service: Service) -> None:
    """The vault is unsealed and trusted, and what is remembered of it is fresh."""
    service.memory.require()


def _audit_log(service: Service) -> None:
    """The entry of a use can be written."""
    service.spool.require()


def _rate_limits(service: Service) -> None:
    """A use can be counted."""
    service.rate_limits.require()


CONDITIONS: tuple[tuple[str, Callable[[Service], None]], ...] = (
    ("lease", _lease),
    ("audit log", _audit_log),
    ("rate limits", _rate_limits),
)
"""Each under the name that operators see, in the order in which uses ask for them."""


def require_ready(service: Service) -> None:
    """Raise the Refusal that a use would be given now."""
    for _, require in CONDITIONS:
        require(service)


def audit_log_state(service: Service) -> str:
    """A line of text about the tree of the audit log, for operators. Raises Refusal."""
    state = service.audit_state.read()
    folded = f", folded last at {state.folded_at:%Y-%m-%dT%H:%M:%SZ}" if state.size else ""
    return f"audit log entries: {state.size}, and {state.waiting} that wait{folded}\n"
