"""How the vault and this host are, from the metrics."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit


@dataclass(frozen=True)
class Sign:
    """One thing to look at. `state` is `good`, `look` or `bad`; a word beside it says which."""

    title: str
    value: str
    state: str
    about: str


def signs_of(visit: Visit) -> list[Sign]:
    """The signs of health, the ones to act on first."""
    values = _values(visit.run("metrics").body.decode())
    signs = [
        _days(values, "kms_certificate_remaining_days"),
        _zero(
            values,
            "kms_integrity_failures_total",
            "Tables altered from outside",
            "The command `vault verify` names the rows.",
        ),
        _zero(values, "kms_database_errors_total", "Database errors", "Since the workers started."),
        _zero(values, "kms_audit_files_lost_total", "Audit files that were lost", "Since the workers started."),
        _number(
            values, "kms_login_locks", "Clients and places locked out", "After failed log-ins; each ends by itself."
        ),
        _number(values, "kms_sessions", "Sessions", "That are not over."),
        _number(values, "kms_access_keys", "Access keys", "That have not expired."),
        _number(values, "kms_workers", "Workers on this host", ""),
        _size(values, "kms_resident_memory_bytes", "Memory of the workers"),
        _size(values, "kms_audit_spool_bytes", "Audit files on this host"),
        _number(values, "kms_epoch", "Epoch", "Moves with every change that outdates what workers remember."),
    ]
    return [sign for sign in signs if sign is not None]


@page("/health")
def health(visit: Visit) -> Response:
    """The vault's health in full."""
    return visit.render("health.html", signs=signs_of(visit))


def _values(exposition: str) -> dict[str, float]:
    """The sum over its labels of every metric, by name."""
    # Not before the service has told the library where its files are (see `kms.metrics`).
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0) + float(sample.value)
    return values


def _days(values: dict[str, float], name: str) -> Sign | None:
    if name not in values:
        return None
    days = int(values[name])
    state = "good" if days > 30 else "look" if days > 7 else "bad"
    return Sign("TLS certificate", f"{days} days", state, "Until it, or one of its chain, expires.")


def _zero(values: dict[str, float], name: str, title: str, about: str) -> Sign:
    count = values.get(name, 0)  # what was never counted is not among the metrics
    return Sign(title, f"{count:.0f}", "good" if count == 0 else "bad", about)


def _number(values: dict[str, float], name: str, title: str, about: str) -> Sign | None:
    return Sign(title, f"{values[name]:,.0f}", "", about) if name in values else None


def _size(values: dict[str, float], name: str, title: str) -> Sign | None:
    return Sign(title, f"{values[name] / 2**20:,.1f} MiB", "", "") if name in values else None
