"""The inputs of the AWS dialect are held to botocore's model of the service, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape
from msgspec import inspect

import kms.api.aws.middleware  # noqa: F401  # it fills the table
from kms.api.aws.request import ACTIONS

MODEL = botocore.session.get_session().get_service_model("kms")
WRITTEN_OTHERWISE = {r"\u0009\u000A\u000D\u0020-\u00FF": r"\t\n\r -\xff", r"[\w]": r"\w", r"\d": "[0-9]"}
PASSED_OVER = {"DryRunModifiers", "BypassPolicyLockoutSafetyCheck"}
REFUSED = {  # whatever is in them
    "SourceArn", "GranteeServicePrincipal", "RetiringServicePrincipal", "XksKeyId", "Recipient",
    "KeyMaterialDescription",
}  # fmt: skip
OUR_OWN = {"Marker"}  # of another form, checked where the list is made


def kind_of(member: inspect.Type) -> Any:
    """The type of a member that is there."""
    if isinstance(member, inspect.UnionType):
        return next(each for each in member.types if not isinstance(each, inspect.NoneType))
    return member


def differences(name: str, shape: Shape, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where a type differs from the model: the member, what the model has and what we have."""
    model: Any = shape
    told = {each: value for each, value in model.metadata.items() if each in ("min", "max") and value}
    if model.type_name == "structure":
        fields = {field.encode_name: field for field in ours.fields}
        for member, inner in model.members.items():
            if member not in fields:
                yield f"{name}.{member}", "a member", None
            elif member not in REFUSED | OUR_OWN:
                required = member in model.required_members
                if required is not fields[member].required:
                    yield f"{name}.{member}", required, fields[member].required
                yield from differences(f"{name}.{member}", inner, kind_of(fields[member].type))
    elif getattr(model, "enum", None):
        yield name, set(model.enum), {each for each in ours.values if each is not None}
    elif model.type_name in ("integer", "long"):
        yield name, told, {each: bound for each, bound in (("min", ours.ge), ("max", ours.le)) if bound}
    elif model.type_name in ("string", "blob", "list"):
        bounds = (("min", ours.min_length), ("max", ours.max_length))
        yield name, told, {each: bound for each, bound in bounds if bound}
        if model.type_name == "list":
            yield from differences(f"{name}[]", model.member, kind_of(ours.item_type))
        pattern = model.metadata.get("pattern")
        if pattern or getattr(ours, "pattern", None):
            for theirs, written in WRITTEN_OTHERWISE.items():
                pattern = (pattern or "").replace(theirs, written)
            yield name, pattern.strip("^$"), (ours.pattern or "").removeprefix("^").removesuffix(r"\Z")


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_members_and_constraints_are_those_of_the_model(name: str) -> None:
    found = differences(name, MODEL.operation_model(name).input_shape, inspect.type_info(ACTIONS[name].input))
    unequal = [each for each in found if each[1] != each[2] and each[0].rpartition(".")[2] not in PASSED_OVER]
    assert unequal == []


def test_what_is_not_there_is_about_custom_key_stores() -> None:
    missing = set(MODEL.operation_names) - set(ACTIONS)
    assert all("CustomKeyStore" in name for name in missing)
