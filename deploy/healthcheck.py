"""Exits with 0 where the service in this container is ready, else with 1 and why. It reads the service's settings."""

from __future__ import annotations

import http.client
import ssl
import sys

from kms.config import load

_SECONDS = 4


def main() -> None:
    """Ask `/readyz` over TLS."""
    context = ssl.create_default_context()
    context.check_hostname = False  # it is the port of this container; its certificate names the service
    context.verify_mode = ssl.CERT_NONE
    try:
        connection = http.client.HTTPSConnection("127.0.0.1", load().port, timeout=_SECONDS, context=context)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"It does not answer: {error}")
    if answer.status != http.HTTPStatus.OK:
        sys.exit(f"{answer.status}: {answer.read(1000).decode(errors='replace')}")


if __name__ == "__main__":
    main()
