"""The Key Management System: `create_app()` for any WSGI server, `python app.py` to serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

    from kms.config import Settings
    from kms.secret import Secret


def create_app(settings: Settings | None = None, root_key: Secret | None = None) -> Flask:
    """The WSGI application of one worker, with its vault open and its schedule running.

    Without `settings` they come from KMS_* variables, and without `root_key` it comes from the seal.
    Raises kms.errors.StartError.
    """
    from multiprocessing.util import Finalize

    from kms.api.application import create_flask_app
    from kms.config import load
    from kms.files import faults_of_start
    from kms.log import configure_logging
    from kms.operations import Schedule, Service

    settings = settings or load()
    configure_logging(settings)
    with faults_of_start(settings.data_dir):
        service = Service.open(settings, root_key=root_key)
    schedule = Schedule(service)
    schedule.start()
    Finalize(None, service.write_at_the_end, exitpriority=1)  # also where workers end without `atexit`
    app = create_flask_app(service)
    app.extensions["kms.schedule"] = schedule
    return app


def __getattr__(name: str) -> Any:
    """`app:app`, made when a WSGI server asks for it and not when this module is imported."""
    if name == "app":
        globals()["app"] = application = create_app()
        return application
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    from kms.server import main

    main()
