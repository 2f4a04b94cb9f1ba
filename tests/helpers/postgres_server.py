"""A PostgreSQL of the test's own, on loopback, that can be paused, ended, started again and followed by a standby."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from helpers.installed import not_installed
from helpers.support import free_port, wait_for_postgres


def programs() -> Path | None:
    """Where `initdb` and the others are; None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def require_postgres() -> None:
    """Skip the test where there is no PostgreSQL; fail it where there ought to be one."""
    if programs() is None:
        not_installed("PostgreSQL")


@dataclass
class PostgresServer:
    """One server. `settings` are given to it at each start."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def new(**settings: str) -> PostgresServer:
        """A server with an empty data directory; it does not run yet."""
        # Below /tmp, because the user who runs it must be able to get there, and the path of its socket be short.
        home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/kms-test-pg.XXXXXX"], text=True).strip())
        server = PostgresServer(home, settings)
        if os.getuid() == 0:
            shutil.chown(home, server._user)
        return server

    def initialize(self) -> PostgresServer:
        """Make the data directory."""
        self.run("initdb", "-D", str(self.data), "-U", "kms", "-A", "trust", "--no-sync")
        return self

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.home / "data"

    @property
    def url(self) -> str:
        """Its URL, without a database."""
        return f"postgresql://kms@127.0.0.1:{self.port}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the user of the server, to its end."""
        found = programs()
        assert found is not None
        subprocess.run([found / program, *arguments], check=True, **self._quiet)

    def start(self) -> PostgresServer:
        """Start it, and wait until it takes connections."""
        found = programs()
        assert found is not None
        given = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.home),
            "fsync": "off",
            **self.settings,
        }
        options = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen([found / "postgres", "-D", self.data, *options], **self._quiet)
        wait_for_postgres(self.url)
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends its connections, SIGQUIT does not even write what it has, SIGKILL is what it says."""
        if self.process is not None:
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            children = self.pids()[1:]
            self.process.send_signal(how)
            self.process.wait(timeout=30)
            for pid in children if how == signal.SIGKILL else ():  # they would see it a moment later
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            self.process = None

    def pids(self) -> list[int]:
        """Its processes, the first of them that which has the others."""
        assert self.process is not None
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [self.process.pid, *map(int, found.stdout.split())]

    def pause(self) -> None:
        """Stop all of its processes where they are."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        for pid in reversed(self.pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def ask(self, question: str, *values: Any, database: str = "postgres") -> list[Any]:
        """The rows that a statement gives, with its own transaction."""
        with closing(psycopg.connect(f"{self.url}/{database}", autocommit=True)) as connection:
            cursor = connection.execute(question, values)
            return cursor.fetchall() if cursor.description else []

    def standby(self, port: int | None = None) -> PostgresServer:
        """A hot standby that follows this server, at that port where one is given; it runs."""
        follower = PostgresServer.new(**self.settings)
        follower.port = port or follower.port
        follower.run("pg_basebackup", "-d", f"{self.url}/postgres", "-D", str(follower.data), "-R", "-X", "stream",
                     "-c", "fast", "--no-sync")  # fmt: skip
        return follower.start()

    def remove(self) -> None:
        """End it, and remove what it had."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def _user(self) -> str:
        return "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name

    @property
    def _quiet(self) -> dict[str, Any]:
        as_user: dict[str, Any] = {"user": self._user} if os.getuid() == 0 else {}  # it refuses to run as root
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.home, **as_user}
