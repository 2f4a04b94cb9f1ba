"""A world over TLS in this process, for clients that speak HTTPS and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from werkzeug.serving import make_server

from helpers.certificates import write_pair
from helpers.support import World


@contextmanager
def served(world: World, folder: Path) -> Iterator[tuple[str, str]]:
    """The URL of the world, and the certificate to trust, which is made in `folder`."""
    write_pair(folder)
    pair = str(folder / "server.crt"), str(folder / "server.key")
    server = make_server("localhost", 0, world.http.application, threaded=True, ssl_context=pair)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}", pair[0]
    server.shutdown()
    server.server_close()


def token_of(world: World, client_id: str) -> str:
    """A session token of a client that is enrolled."""
    return world.login(client_id).headers["Authorization"].removeprefix("Bearer ")
