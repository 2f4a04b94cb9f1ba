"""The complete WSGI application of one worker, for `python app.py` and for any other WSGI server."""

from __future__ import annotations

from multiprocessing.util import Finalize

from flask import Flask

from kms.allocator import return_freed_memory
from kms.api.application import create_flask_app
from kms.config import Settings, load
from kms.files import faults_of_start
from kms.log import configure_logging
from kms.operations import Schedule, Service
from kms.process_protection import log_unprotected, protect_process
from kms.vault import unsealed as unsealed_before
from kms.vault.unsealed import Unsealed


def create_app(settings: Settings | None = None, unsealed: Unsealed | None = None, *, folds: bool = True) -> Flask:
    """The application, with its vault open and its schedule running.

    Without `settings` they come from KMS_* variables. Without `unsealed` it is what was inherited from the process
    that forked this one, and else the seal unseals the vault. Without `folds` another process folds the audit log.
    Raises kms.errors.StartError.
    """
    unprotected = protect_process() if settings is None else []  # who has settings did that before
    settings = settings or load()
    configure_logging(settings)
    log_unprotected(unprotected)
    return_freed_memory()
    with faults_of_start(settings.data_dir):
        service = Service.open(settings, unsealed=unsealed or unsealed_before.inherited)
    schedule = Schedule(service, folds=folds)
    schedule.start()
    Finalize(None, service.write_at_the_end, exitpriority=1)  # also where workers end without `atexit`
    app = create_flask_app(service)
    app.extensions["kms.schedule"] = schedule
    return app
