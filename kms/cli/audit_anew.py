"""`audit begin-anew`: another log, where the one before is lost."""

from __future__ import annotations

from typing import Any

import click

from kms.cli.on_host import local_entry, of_the_service, opened, settings_of


@click.command("begin-anew")
@click.option("--yes", is_flag=True, help="Do not ask.")
@of_the_service
def begin_anew(*, yes: bool, **flags: Any) -> None:
    """Begin another audit log, because the directory of the one before is lost for good.

    Run it on the host, with the settings of the service. The lost entries cannot be had back; receipts and
    checkpoints of them that others keep stay valid. The new log has another name, so that nobody can pass one off as
    the other, and its first entry says that the one before was lost. Try to restore the directory first.

    \b
    For example:
      kms audit begin-anew
    """
    import structlog  # here, as all of the service: the other commands do without it

    from kms.audit.beginning import begin_anew as begin

    vault, settings = opened(flags), settings_of(flags)
    if not yes:
        click.confirm("Every entry of the audit log is given up. Begin another log?", abort=True)
    lost = begin(vault, settings.audit_log_dir, local_entry("begin_audit_log_anew", str(settings.audit_log_dir)))
    structlog.get_logger().critical("THE AUDIT LOG WAS GIVEN UP", origin=lost.origin, entries=lost.size)
    click.echo(f"The log {lost.origin} with {lost.size} entries is given up. The next fold begins another.")
