"""The Key Management System: `create_app()` for any WSGI server, `python app.py` to serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kms.wsgi import create_app as create_app


def __getattr__(name: str) -> Any:
    """`create_app`, and `app:app`, which is made when a WSGI server asks for it and not when this is imported."""
    from kms.wsgi import create_app

    if name == "create_app":
        return create_app
    if name == "app":
        globals()["app"] = application = create_app()
        return application
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    from kms.server import main

    main()
