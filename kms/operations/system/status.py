"""The status of the service in one answer, for operators: `kms status`."""

from __future__ import annotations

from datetime import datetime

from kms.access.policy import Permission
from kms.operations.core.declare import Answer, EmptyRequest, operation
from kms.operations.core.service import Call, Service
from kms.operations.system import gauges, status_of_audit_log, status_of_vault
from kms.operations.system import status_sections as sections
from kms.operations.system.readiness import require_ready


class Status(Answer):
    """The service as the node that answers sees it. `attention` are sentences that say what to act on.

    It is answered only by a node that is ready; another one answers 503 with the reason, as `/readyz` does.
    """

    attention: list[str]
    at: datetime
    answered_by: sections.AnsweredBySection
    nodes: list[sections.NodeView]
    database: sections.DatabaseSection
    seal: status_of_vault.SealSection
    backup: status_of_vault.BackupSection
    integrity_check: sections.IntegritySection
    certificate: sections.CertificateSection
    audit_log: status_of_audit_log.AuditLogSection
    rate_limits: sections.RateLimitSection
    schedule: sections.ScheduleSection
    notices: sections.NoticesSection
    keys: sections.KeysSection
    people: sections.PeopleSection


@operation("GET", "/api/v1/status", permission=Permission.METRICS_READ, checked_upfront=True)
def get_status(service: Service, call: Call, request: EmptyRequest) -> Status:
    """Show how the service is: nodes, database, checks, backlogs, keys by state, and what to act on."""
    require_ready(service)
    now = service.clock()
    measured = {gauge.name: gauge for gauge in gauges.read_now(service)}
    with service.vault.read() as snapshot:
        look = sections.Look(service, snapshot, now, measured)
        return Status(
            attention=look.attention,
            at=now,
            answered_by=sections.AnsweredBySection.read(look),
            nodes=sections.nodes(look),
            database=sections.DatabaseSection.read(look),
            seal=status_of_vault.SealSection.read(look),
            backup=status_of_vault.BackupSection.read(look),
            integrity_check=sections.IntegritySection.read(look),
            certificate=sections.CertificateSection.read(look),
            audit_log=status_of_audit_log.AuditLogSection.read(look),
            rate_limits=sections.RateLimitSection.read(look),
            schedule=sections.ScheduleSection.read(look),
            notices=sections.NoticesSection.read(look),
            keys=sections.KeysSection.read(look),
            people=sections.PeopleSection.read(look),
        )
