"""The databases that faults are made on: files of SQLite, and a PostgreSQL server that can be killed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg

from faults.outcome import Skipped
from helpers.support import free_port, new_database

KINDS = ("sqlite", "postgresql")
_START_SECONDS = 60


class PostgresServer:
    """A server on loopback with a data directory of its own, which survives `kill` as far as PostgreSQL promises.

    Unlike that of the other tests it syncs its log (`fsync=on`), since this is about what is durable.
    """

    def __init__(self, home: Path | None = None) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise Skipped("PostgreSQL is not installed; .ci/install-services installs it")
        self._programs = found[-1].parent
        self._home = home or Path(tempfile.mkdtemp(prefix="kms-faults-pg-", dir="/tmp"))
        # PostgreSQL refuses to run as root.
        user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self._as_user: dict[str, Any] = {"user": user} if os.getuid() == 0 else {}
        if self._as_user:
            shutil.chown(self._home, user)
        self.data, self.port = self._home / "data", free_port()
        self.url = f"postgresql://kms@127.0.0.1:{self.port}"
        subprocess.run(
            [self._programs / "initdb", "-D", self.data, "-U", "kms", "-A", "trust", "--wal-segsize=1"],
            check=True, **self._quiet(),
        )  # fmt: skip
        self.start()

    def _quiet(self) -> dict[str, Any]:
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self._home, **self._as_user}

    def start(self) -> None:
        """Start it, after it was killed too, and wait until it takes connections."""
        options = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self._home}"]
        options += ["fsync=on", "max_connections=200", "min_wal_size=2MB", "max_wal_size=32MB", "shared_buffers=16MB"]
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        for option in options:
            command += ["-c", option]
        deadline = time.monotonic() + _START_SECONDS
        self.process = subprocess.Popen(command, **self._quiet())
        while not self.takes_connections():
            if time.monotonic() > deadline:
                raise TimeoutError("PostgreSQL does not come up")
            if self.process.poll() is not None:  # what it left behind when it was killed is not over yet
                time.sleep(0.1)
                self.process = subprocess.Popen(command, **self._quiet())
            time.sleep(0.02)

    def takes_connections(self) -> bool:
        """Whether it does at this moment."""
        try:
            psycopg.connect(f"{self.url}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL the postmaster; its children end when they notice."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def backends(self, url: str) -> list[int]:
        """The process ids of the backends that serve the database at `url`."""
        name = url.rpartition("/")[2]
        with closing(psycopg.connect(f"{self.url}/postgres", connect_timeout=2)) as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [name]).fetchall()
        return [int(row[0]) for row in rows]

    def stop(self) -> None:
        """End it and remove its files."""
        with suppress(subprocess.TimeoutExpired):
            self.process.send_signal(signal.SIGINT)  # a fast shutdown
            self.process.wait(timeout=30)
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


class Databases:
    """Makes databases of one kind: `kind` is one of KINDS."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._server: PostgresServer | None = None

    @property
    def server(self) -> PostgresServer:
        """The server of PostgreSQL, started when it is first needed."""
        if self._server is None:
            self._server = PostgresServer()
        return self._server

    def new_url(self, folder: Path) -> str | None:
        """The URL of an empty database; None for the service's own file of SQLite in its data directory."""
        return None if self.kind == "sqlite" else new_database(self.server.url)

    def close(self) -> None:
        """Stop the server, where one was needed."""
        if self._server is not None:
            self._server.stop()
