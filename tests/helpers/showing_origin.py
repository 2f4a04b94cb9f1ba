"""The service, with a page that shows what OriginMiddleware hands on: as a program, or `showing_origin:app`.

As a program it is `python app.py`. The page is at /shown.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from kms import server, wsgi
from kms.api.fast_path import Environ, StartResponse, WsgiApp
from kms.api.origin import OriginMiddleware, presented_certificate

_create_app = wsgi.create_app


def create_app(*given: Any, **options: Any) -> Any:
    """The application of a worker, with the page."""
    flask = _create_app(*given, **options)
    origin = flask.wsgi_app
    assert isinstance(origin, OriginMiddleware)
    origin.next_app = _with_page(origin.next_app)
    return flask


def _with_page(next_app: WsgiApp) -> WsgiApp:
    def answer(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] != "/shown":
            return next_app(environ, start_response)
        found = presented_certificate(environ)
        ders = [] if found is None else [found.leaf, *found.chain]
        left = [name for name in environ if name.startswith(("HTTP_FORWARDED", "HTTP_X_FORW", "HTTP_CLIENT_"))]
        length = len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        shown = {
            "source": environ["REMOTE_ADDR"], "path": environ["PATH_INFO"], "host": environ["HTTP_HOST"],
            "certificates": [base64.b64encode(each).decode() for each in ders], "left": left, "length": length,
        }  # fmt: skip
        body = json.dumps(shown).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


if __name__ == "__main__":
    wsgi.create_app = create_app
    server.main()
elif __name__ == "showing_origin":
    app = create_app()
