"""The complete WSGI application of one worker, for `python app.py` and for any other WSGI server."""

from __future__ import annotations

from multiprocessing.util import Finalize

from flask import Flask

from kms.api.application import create_flask_app
from kms.config import Settings, load
from kms.files import faults_of_start
from kms.log import configure_logging
from kms.operations import Schedule, Service
from kms.vault.unsealed import Unsealed


def create_app(settings: Settings | None = None, unsealed: Unsealed | None = None) -> Flask:
    """The application, with its vault open and its schedule running.

    Without `settings` they come from KMS_* variables, and without `unsealed` the seal unseals the vault.
    Raises kms.errors.StartError.
    """
    settings = settings or load()
    configure_logging(settings)
    with faults_of_start(settings.data_dir):
        service = Service.open(settings, unsealed=unsealed)
    schedule = Schedule(service)
    schedule.start()
    Finalize(None, service.write_at_the_end, exitpriority=1)  # also where workers end without `atexit`
    app = create_flask_app(service)
    app.extensions["kms.schedule"] = schedule
    return app
