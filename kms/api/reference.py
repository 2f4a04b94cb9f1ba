"""The pages at `/` and `/docs`: every operation, readable without scripts and without the network.

They are made from the operation table. The one script only hides what does not match a search.
"""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from typing import Any

from kms import __version__
from kms.api import examples, openapi
from kms.api.groups import Group, groups
from kms.operations import OPERATIONS, FromAnswerOf, Operation

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
nav { columns: 3 16rem; font-size: .9rem; }
nav div { break-inside: avoid; margin-bottom: .8rem; }
section { border-top: 1px solid #8884; margin-top: 1.5rem; }
h3 { margin-bottom: 0; }
h3 code { text-decoration: none; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: .4rem .6rem; }
pre, td code { font: .85rem/1.4 ui-monospace, monospace; }
pre { white-space: pre-wrap; padding: .7rem; background: #8882; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
td { vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8883; }
.method { font-weight: 700; }
"""
_SCRIPT = """
const field = document.getElementById("search");
field.hidden = false;
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\\s+/);
  const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
  for (const group of document.querySelectorAll("article")) {
    const sections = [...group.querySelectorAll("section")];
    for (const section of sections) section.hidden = !matches(section.textContent);
    group.hidden = sections.every((section) => section.hidden);
  }
  for (const link of document.querySelectorAll("nav a")) {
    link.hidden = document.getElementById(link.hash.slice(1)).hidden;
  }
});
"""
_CURL = "curl -K ~/.config/kms/curlrc"
_URL = "https://localhost:8443"
_LOG_IN = (
    "For people: `python -m kms login` asks for the client secret, the client id and the code of the authenticator "
    "app. It keeps a token for an hour, and writes `~/.config/kms/curlrc`, with which all examples here work as they "
    f"are. The address `{_URL}` stands for that of this service; `--url` and `--ca-cert` tell `login` of another "
    "address and of the certificate to trust.\n\n"
    "For programs: `POST /auth/token` with client id and secret (`Authorization: Basic`) and the six digits in "
    "`X-TOTP`, or a recovery code in `X-Recovery-Code`, gives a token. It goes into the header "
    "`Authorization: Bearer …` of each request:"
)
_TOKEN_LINE = f'curl --cacert server.crt -u "admin:$SECRET" -H "X-TOTP: $CODE" -X POST {_URL}/auth/token'
_MEMBER_ABOUT = (
    "The examples are for the shell and for `admin`. Pasted in their order each finds what it needs; some take a "
    "member of an earlier answer, with this:"
)
MEMBER = (
    """member() { printf %s "$2" | python3 -c 'import json, sys; """
    """print(json.dumps(json.load(sys.stdin)[sys.argv[1]])[1:-1])' "$1"; }"""
)
"""Prints a member of an answer as it stands between quotes in JSON; the examples use it."""
_KEYS_ABOUT = "The examples use these keys too:"


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str
    required: bool


def page() -> str:
    """The page at `/docs` as HTML."""
    links = "".join(map(_links, groups()))
    about = _paragraphs(openapi.description()["info"]["description"])
    return _html(
        f'<h2 id="log-in">Log in</h2>{_paragraphs(_LOG_IN)}{_shell(_TOKEN_LINE)}'
        f'<h2>How to read this</h2>{about}<p>The same for programs: <a href="/openapi.json">OpenAPI 3.1</a>.</p>'
        f"{_paragraphs(_MEMBER_ABOUT)}{_shell(MEMBER)}"
        '<p><input id="search" type="search" placeholder="Search" aria-label="Search the operations" hidden></p>'
        f"<nav>{links}</nav>{''.join(map(_article, groups()))}<script>{_SCRIPT}</script>"
    )


def home() -> str:
    """The page at `/`, which leads on, as HTML."""
    return _html(
        "<p>A key management service, for programs and for the command line.</p>"
        '<ul><li><a href="/docs">what it can do, and how to log in</a></li>'
        '<li><a href="/openapi.json">the same for programs (OpenAPI 3.1)</a></li>'
        '<li><a href="/console">the console, for people</a></li>'
        '<li><a href="/readyz">whether it is ready</a></li></ul>'
    )


def curl_line(operation: Operation) -> str:
    """The example as a line for the shell, with the configuration that `kms login` leaves.

    What comes from an earlier answer is taken from the shell's variable that the line of that operation sets.
    """
    if operation.is_token_endpoint:
        return _TOKEN_LINE
    path = re.sub(
        r"<(?:int:|path:)?(\w+)>", lambda match: _piece(examples.variable_of(operation, match[1])), operation.path
    )
    request = examples.request_of(operation)
    if operation.method == "GET":
        query = "&".join(f"{name}={value}" for name, value in (request or {}).items())
        line = f"{_CURL} '{_URL}{path}?{query}'" if query else f"{_CURL} {_URL}{path}"
    else:
        method = "" if operation.method == "POST" and request is not None else f"-X {operation.method} "
        line = f"{_CURL} {method}{'' if request is None else f'-d {_quoted(request)} '}{_URL}{path}"
    variable = operation.name.upper()
    return f"{variable}=$({line}); printf '%s\\n' \"${variable}\"" if operation.name in _needed() else line


@cache
def _needed() -> frozenset[str]:
    """The operations whose answers later examples take something from."""
    found = set()
    for operation in OPERATIONS.values():
        values = list((examples.request_of(operation) or {}).values())
        values += [
            examples.variable_of(operation, name) for name in re.findall(r"<(?:int:|path:)?(\w+)>", operation.path)
        ]
        found |= {value.operation for value in values if isinstance(value, FromAnswerOf)}
    return frozenset(found)


def _piece(value: Any) -> str:
    """A value in a word of the shell."""
    if isinstance(value, FromAnswerOf):
        return f'$(member {value.member} "${value.operation.upper()}")'
    return str(value)


def _quoted(request: Mapping[str, Any]) -> str:
    """A request as JSON in single quotes, which are left for what comes from an earlier answer."""
    members = []
    for name, value in request.items():
        taken = f"""\"'"{_piece(value)}"'\"""" if isinstance(value, FromAnswerOf) else json.dumps(value)
        members.append(f"{json.dumps(name)}: {taken}")
    return f"'{{{', '.join(members)}}}'"


def keys_lines() -> list[str]:
    """The lines that make the keys which the examples use, beside the one that an example makes."""
    bodies = ({"key_id": key_id, **body} for key_id, body in examples.KEYS.items())
    return [f"{_CURL} -d {_quoted(body)} {_URL}/api/v1/keys" for body in bodies]


def _html(body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>KMS {__version__}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>KMS {__version__}</h1>{body}</body></html>\n"
    )


def _shell(lines: str) -> str:
    return f"<pre>{escape(lines)}</pre>"


def _links(group: Group) -> str:
    operations = "".join(f'<a href="#{name}">{escape(name)}</a><br>' for name in group.names)
    return f'<div><a href="#{group.anchor}"><strong>{escape(group.title)}</strong></a><br>{operations}</div>'


def _article(group: Group) -> str:
    sections = ""
    for operation in group.operations:
        sections += _section(operation)
        if operation.name == "create_key":
            sections += f"<section><p>{_KEYS_ABOUT}</p>{_shell(chr(10).join(keys_lines()))}</section>"
    heading = f"<h2>{escape(group.title)}</h2>{_paragraphs(group.about)}"
    return f'<article id="{group.anchor}">{heading}{sections}</article>'


def _section(operation: Operation) -> str:
    request = openapi.description()["components"]["schemas"][operation.request.__name__]
    rows = "".join(
        f"<tr><td><code>{escape(each.name)}</code></td><td>{escape(each.kind)}</td>"
        f"<td>{'required' if each.required else ''}</td></tr>"
        for each in _members(request)
    )
    needs = f"<p>Needs <code>{escape(operation.permission)}</code>.</p>" if operation.permission else ""
    batch = "<p>Takes <code>items</code>.</p>" if operation.batch else ""
    note = _paragraphs(examples.ELSEWHERE.get(operation.name, ""))
    return (
        f'<section id="{operation.name}"><h3><span class="method">{operation.method}</span> '
        f"<code>{escape(operation.path)}</code></h3>{_paragraphs(inspect.getdoc(operation.function) or '')}"
        f"{needs}{batch}{_paragraphs(inspect.getdoc(operation.request) or '') if rows else ''}"
        f"{f'<table>{rows}</table>' if rows else ''}{note}{_shell(curl_line(operation))}</section>"
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
