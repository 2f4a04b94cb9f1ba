"""docs/reference/key-types.md, made from the registry: `python -m kms.api.matrix`."""

from __future__ import annotations

from kms.crypto.hpke import HpkeKey
from kms.crypto.keytype import KeyType
from kms.crypto.primitives import KeyWrapper, Signer
from kms.crypto.registry import KEY_TYPES
from kms.keys.model import Usage

_HEAD = """\
# Key types

Made from the registry by `python -m kms.api.matrix`. A key is made for one of the purposes of its type, the first
unless `usages` says otherwise, or for a part of one; it is never used in two modes. What a key was not made for is
refused with `operation-not-supported`.
"""
_FOOT = """\
`encrypt` stands for encrypt, rewrap, data-key and data-key-pair. Types with a message limit draw 96-bit nonces at
random; their messages are counted, and halfway to the limit the key rotates by itself.

The category is NIST's for the strength against quantum computers, from 1 (as AES-128) to 5 (as AES-256). Types
without one are broken by Shor's algorithm. The categories and their sources are in `kms/crypto/registry.py`:

"""
_TITLES = "| type | what it is | standard | algorithms | formats | message limit | bits of strength | NIST category |"
_COLUMNS = (
    ("encrypt, decrypt", Usage.ENCRYPT),
    ("sign, verify", Usage.SIGN),
    ("mac, verify-mac", Usage.MAC),
    ("wrap, unwrap", Usage.WRAP),
    ("derive", Usage.DERIVE),
    ("agree", Usage.AGREE),
    ("encapsulate, decapsulate", Usage.ENCAPSULATE),
    ("seal, open", Usage.SEAL),
)


def page() -> str:
    """The page as Markdown."""
    columns = " | ".join(name for name, _ in _COLUMNS)
    lines = [_HEAD, f"| type | {columns} |", "|" + "---|" * (len(_COLUMNS) + 1)]
    lines += [f"| `{name}` | {' | '.join(_marks(kind))} |" for name, kind in KEY_TYPES.items()]
    lines += ["", "● by default, ○ when asked for in `usages`.", ""]
    lines += [_TITLES, "|" + "---|" * (_TITLES.count("|") - 1)]
    lines += [_described(kind) for kind in KEY_TYPES.values()]
    sources: dict[str, list[str]] = {}
    for kind in KEY_TYPES.values():
        sources.setdefault(kind.strength.source, []).append(f"`{kind.name}`")
    listed = "".join(f"- {', '.join(names)}: {source}.\n" for source, names in sources.items())
    return "\n".join([*lines, "", _FOOT]) + listed


def _marks(kind: KeyType) -> list[str]:
    return ["●" if usage in kind.usages else "○" if usage in kind.every_usage else "" for _, usage in _COLUMNS]


def _described(kind: KeyType) -> str:
    primitive = kind.load(kind.generate())
    algorithms: list[str] = []
    if isinstance(primitive, Signer):
        algorithms += primitive.algorithms
    if isinstance(primitive, KeyWrapper):
        algorithms += primitive.wrapping_algorithms
    if Usage.SEAL in kind.every_usage and isinstance(primitive, HpkeKey):
        algorithms.append(primitive.suite)
    limit = f"2^{kind.message_limit.bit_length() - 1}" if kind.message_limit else ""
    strength = (str(kind.strength.classical_bits), str(kind.strength.category or "none"))
    what = (f"`{kind.name}`", kind.title, kind.standard, "; ".join(algorithms), ", ".join(kind.formats), limit)
    cells = (*what, *strength)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")
