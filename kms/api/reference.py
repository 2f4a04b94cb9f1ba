"""The page at `/docs`: every operation, readable without scripts, without the network, from the operation table."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from itertools import groupby
from typing import Any

from kms import __version__
from kms.api import examples, openapi
from kms.operations import OPERATIONS, Operation

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
nav { columns: 3 14rem; font-size: .9rem; }
nav a, h3 code { text-decoration: none; }
section { border-top: 1px solid #8884; margin-top: 1.5rem; }
h3 { margin-bottom: 0; }
pre, td code { font: .85rem/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .7rem; background: #8882; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8883; }
.method { font-weight: 700; }
"""
_STYLE_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str
    required: bool


def page() -> str:
    """The page as HTML."""
    groups = [(name, list(each)) for name, each in groupby(OPERATIONS.values(), key=openapi.tag)]
    links = "".join(f'<a href="#{each.name}">{escape(each.name)}</a><br>' for _, group in groups for each in group)
    body = "".join(f"<h2>{escape(name)}</h2>" + "".join(map(_section, group)) for name, group in groups)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>KMS {__version__}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>KMS {__version__}</h1>{_paragraphs(openapi.description()['info']['description'])}"
        f'<p><a href="/openapi.json">OpenAPI 3.1</a></p><p>The examples use:</p><pre>{escape(_keys())}</pre>'
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def home() -> str:
    """The page at `/`, which leads on, as HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>KMS {__version__}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>KMS {__version__}</h1><p>A key management service, for programs and for the command line.</p>"
        '<ul><li><a href="/docs">what it can do, and how to log in</a></li>'
        '<li><a href="/openapi.json">the same for programs (OpenAPI 3.1)</a></li>'
        '<li><a href="/readyz">whether it is ready</a></li></ul></body></html>\n'
    )


def curl_line(operation: Operation) -> str:
    """The example as a line for the shell, with the configuration that `kms login` leaves."""
    method = "" if operation.method in {"GET", "POST"} else f"-X {operation.method} "
    example = openapi.example_of(operation)
    url = f"https://localhost:8443{openapi.sample_path(operation)}"
    if operation.method == "GET":
        query = "&".join(f"{name}={value}" for name, value in (example or {}).items())
        return f"curl -K ~/.config/kms/curlrc '{url}?{query}'" if query else f"curl -K ~/.config/kms/curlrc {url}"
    if example is None:
        return f"curl -K ~/.config/kms/curlrc -X {operation.method} {url}"
    return f"curl -K ~/.config/kms/curlrc {method}--json '{json.dumps(example)}' {url}"


def _keys() -> str:
    url = "https://localhost:8443/api/v1/keys"
    lines = (json.dumps({"key_id": key_id, **body}) for key_id, body in examples.KEYS.items())
    return "\n".join(f"curl -K ~/.config/kms/curlrc --json '{line}' {url}" for line in lines)


def _section(operation: Operation) -> str:
    request = openapi.description()["components"]["schemas"][operation.request.__name__]
    rows = "".join(
        f"<tr><td><code>{escape(each.name)}</code></td><td>{escape(each.kind)}</td>"
        f"<td>{'required' if each.required else ''}</td></tr>"
        for each in _members(request)
    )
    needs = f"<p>Needs <code>{escape(operation.permission)}</code>.</p>" if operation.permission else ""
    batch = "<p>Takes <code>items</code>.</p>" if operation.batch else ""
    return (
        f'<section id="{operation.name}"><h3><span class="method">{operation.method}</span> '
        f"<code>{escape(operation.path)}</code></h3>{_paragraphs(inspect.getdoc(operation.function) or '')}"
        f"{needs}{batch}{_paragraphs(inspect.getdoc(operation.request) or '') if rows else ''}"
        f"{f'<table>{rows}</table>' if rows else ''}<pre>{escape(curl_line(operation))}</pre></section>"
    )


def _members(schema: dict[str, Any]) -> Iterator[_Member]:
    required = schema.get("required", [])
    for name, each in schema.get("properties", {}).items():
        yield _Member(name, _kind(each), name in required)


def _kind(schema: dict[str, Any]) -> str:
    """A few words for a schema."""
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(each) for each in schema["enum"])
    if "$ref" in schema:
        named = openapi.description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return _kind(named) if "enum" in named else schema["$ref"].rpartition("/")[2]
    if schema.get("contentEncoding") == "base64":
        return "base64"
    return str(schema.get("format") or schema.get("type", "any"))


def _paragraphs(text: str) -> str:
    """Prose with `code` in it."""
    marked = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        pieces = escape(paragraph, quote=False).split("`")
        marked.append("".join(f"<code>{each}</code>" if at % 2 else each for at, each in enumerate(pieces)))
    return "".join(f"<p>{each}</p>" for each in marked)
