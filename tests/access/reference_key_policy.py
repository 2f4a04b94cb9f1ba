"""What a key policy means, read off its document anew for each request: slow, and meant to be obvious.

It follows the order of AWS's evaluation logic: every statement that applies is looked at, a Deny wins, then an Allow.
"""

from __future__ import annotations

import ipaddress
import json
from datetime import datetime
from typing import Any

from kms.access.key_policy import Asked, Circumstances

OURS = {"Wrap", "Unwrap", "Derive", "Seal", "Open", "Export", "ExportPlaintext", "Recover", "Compromise",
        "Configure", "Destroy"}  # fmt: skip


UNKNOWN: dict[str, str] = {}
"""The encryption context of a message that is not known. What denies for some is then taken to be about it."""


def decide(text: str, account: str, asked: Asked, now: Circumstances) -> str | None:
    """`deny`, `allow`, or None where no statement applies."""
    document = json.loads(text)
    effects = {s["Effect"] for s in _list(document["Statement"]) if _applies(s, account, asked, now)}
    if "Deny" in effects:
        return "deny"
    return "allow" if "Allow" in effects else None


def glob(pattern: str, text: str) -> bool:
    """Whether `pattern` matches `text`, one character after the other."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return glob(pattern[1:], text) or (text != "" and glob(pattern, text[1:]))
    return text != "" and pattern[0] in ("?", text[0]) and glob(pattern[1:], text[1:])


def _applies(statement: dict[str, Any], account: str, asked: Asked, now: Circumstances) -> bool:
    deny = statement["Effect"] == "Deny"
    if asked.action in OURS and not deny and not asked.is_owner:
        return False
    if "Action" in statement:
        if not any(_names(each, asked.action) for each in _list(statement["Action"])):
            return False
    elif any(_names(each, asked.action) for each in _list(statement["NotAction"])):
        return False
    if not _about(statement, account, asked, deny):
        return False
    resources = _list(statement.get("Resource", "*"))
    if not any(each == "*" or _same_key(each, account, asked.key_id) for each in resources):
        return False
    conditions = statement.get("Condition", {})
    if now.context is UNKNOWN and "kms:EncryptionContext" in json.dumps(conditions):
        if not deny:
            return False
        conditions = {
            operator: {key: value for key, value in keys.items() if "SourceIp" in key}
            for operator, keys in conditions.items()
        }
    return all(
        _met(operator, key, _list(values), account, asked, now, deny)
        for operator, keys in conditions.items()
        for key, values in keys.items()
    )


def _names(pattern: str, action: str) -> bool:
    if pattern == "*":
        return True
    wanted = pattern.lower().removeprefix("kms:")
    if action in OURS and not set(wanted) & set("*?"):
        return False
    return glob(wanted, action.lower())


def _same_key(arn: str, account: str, key_id: str) -> bool:
    parts, own = arn.split(":", 5), ["arn", "aws", "kms", "", account, f"key/{key_id}"]
    return all(glob(parts[at], own[at]) for at in (0, 1, 2, 4, 5))


def _about(statement: dict[str, Any], account: str, asked: Asked, deny: bool) -> bool:
    given = statement.get("Principal", statement.get("NotPrincipal"))
    listed = ["*"] if given == "*" else _list(given.get("AWS", []))
    root = (account, f"arn:aws:iam::{account}:root")
    named = any(_is_named(each, account, asked) for each in listed)
    if "NotPrincipal" in statement:
        exempt = any(each in root for each in listed) and (named or asked.is_owner)
        return not (exempt or "*" in listed)
    return "*" in listed or named or (any(each in root for each in listed) and (deny or asked.is_owner))


def _is_named(arn: str, account: str, asked: Asked) -> bool:
    kind, _, name = arn.rpartition("/")
    if arn.startswith(f"arn:aws:sts::{account}:assumed-role/"):
        return f"issuer-role:{arn.split('/')[1]}" in asked.principals
    if kind.startswith(f"arn:aws:iam::{account}:user"):
        return f"client:{name}" in asked.principals
    if kind.startswith(f"arn:aws:iam::{account}:role") and ":role/aws-service-role/" not in arn:
        if name in ("admin", "user", "auditor"):
            return f"role:{name}" in asked.principals
        return bool({f"issuer-role:{name}", f"client:{name}"} & asked.principals)
    return False


def _met(
    operator: str, key: str, wanted: list[Any], account: str, asked: Asked, now: Circumstances, deny: bool
) -> bool:
    found = _values(key.lower(), account, asked, now)
    if operator == "Null":
        return str(not found).lower() in [str(each).lower() for each in wanted]
    over, _, bare = operator.rpartition(":")
    if not found:
        if bare.endswith("IfExists") or over == "ForAllValues":
            return True
        return over == "" and "Not" in bare
    bare = bare.removesuffix("IfExists")
    one_by_one = [any(_test(bare, str(each), value) for each in wanted) != ("Not" in bare) for value in found]
    if over == "ForAllValues":
        return all(one_by_one)
    if over == "ForAnyValue":
        return any(one_by_one)
    return any(one_by_one) if deny else all(one_by_one)


def _test(operator: str, wanted: str, value: str) -> bool:
    kind = operator.replace("Not", "")
    if kind in ("StringEquals", "Bool"):
        return wanted.lower() == value if kind == "Bool" else wanted == value
    if kind == "StringEqualsIgnoreCase":
        return wanted.lower() == value.lower()
    if kind == "StringLike":
        return glob(wanted, value)
    if kind in ("ArnLike", "ArnEquals"):
        one, other = wanted.split(":", 5), value.split(":", 5)
        return len(other) == 6 and (wanted == "*" or all(map(glob, one, other)))
    if kind == "IpAddress":
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
    if kind == "DateLessThan":
        return datetime.fromisoformat(value) < datetime.fromisoformat(wanted)
    if kind == "NumericLessThan":
        return float(value) < float(wanted)
    if kind == "NumericGreaterThanEquals":
        return float(value) >= float(wanted)
    raise NotImplementedError(operator)


def _values(key: str, account: str, asked: Asked, now: Circumstances) -> list[str]:
    context = now.context or {}
    if key.startswith("kms:encryptioncontext:"):
        return [
            value for name, value in context.items() if name.lower() == key.removeprefix("kms:encryptioncontext:")
        ]
    if key == "aws:multifactorauthpresent":
        return [str(now.second_factor_age is not None).lower()] if now.is_session else []
    if key == "aws:multifactorauthage":
        return [] if now.second_factor_age is None else [str(int(now.second_factor_age))]
    single: dict[str, str | None] = {
        "aws:sourceip": asked.source,
        "kms:calleraccount": account,
        "kms:granteeprincipal": asked.grantee,
        "aws:securetransport": "true",
        "aws:currenttime": now.now.isoformat() if now.now is not None else None,
    }
    several: dict[str, Any] = {
        "kms:encryptioncontextkeys": context,
        "kms:grantoperations": asked.grant_operations or (),
        "kms:viaservice": (),
        "aws:sourcearn": (),
    }
    if key == "kms:grantisforawsresource":
        return ["false"] if asked.action in ("CreateGrant", "ListGrants", "RevokeGrant") else []
    if key in single:
        return [] if single[key] is None else [str(single[key])]
    return list(several[key])


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]
