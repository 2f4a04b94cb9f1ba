"""A PgBouncer before a PostgreSQL of the tests, with session pooling."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from helpers.installed import not_installed
from helpers.support import free_port, wait_for_postgres


@dataclass
class PgBouncer:
    """One that leads to the server at `server`; `url` is its own. Both without a database."""

    server: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, without a database."""
        return f"postgresql://kms@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it lets somebody through."""
        behind = make_url(self.server)
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={behind.host} port={behind.port} user={behind.username}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = session\ndefault_pool_size = 50\n"
        )
        configuration.chmod(0o644)  # also where a test before has called `protect_process`, and so changed the umask
        as_user = {"user": "nobody"} if os.getuid() == 0 else {}  # it refuses to run as root
        self.process = subprocess.Popen(
            [_program(), configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user
        )
        wait_for_postgres(self.url)

    def stop(self) -> None:
        """End it at once, with all connections through it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)
            self.process = None


@contextmanager
def pgbouncer(server: str) -> Iterator[PgBouncer]:
    """One that runs, before the server at that URL."""
    # Below /tmp, because the user who runs it must be able to get there.
    folder = Path(tempfile.mkdtemp(prefix="kms-test-pgbouncer.", dir="/tmp"))
    folder.chmod(0o755)
    pooler = PgBouncer(server, folder, free_port())
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(folder)


def _program() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        not_installed("PgBouncer")
    return found
