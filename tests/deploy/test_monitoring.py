"""deploy/prometheus and deploy/grafana: every metric and label that they name is one, and the alerts hold.

That what docs/reference/metrics.md lists is what a service has, tests/operations/test_metrics.py sees to.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.deployed import DEPLOY, documents, tool
from kms.errors import every_refusal
from kms.operations import OPERATIONS

_DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
_RULES = [rule for group in next(documents("prometheus/rules.yaml"))["groups"] for rule in group["rules"]]


def _panels() -> Iterator[Any]:
    return (panel for panel in _DASHBOARD["panels"] if panel["type"] != "row")


EXPRESSIONS = [rule["expr"] for rule in _RULES]
EXPRESSIONS += [target["expr"] for panel in _panels() for target in panel["targets"]]


def _documented() -> dict[str, set[str]]:
    """Each family of docs/reference/metrics.md with its labels."""
    page = (DEPLOY.parent / "docs" / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(kms_\w+)` \| (\w+)[^|]*\| ([^|]*)\|", page, re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        names = [f"{name}_{end}" for end in ("bucket", "sum", "count")] if kind == "histogram" else [name]
        found |= {
            each: set(re.findall(r"\w+", labels)) | ({"le"} if kind == "histogram" else set()) for each in names
        }
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_metric_is_there_with_its_labels(expression: str) -> None:
    bare = re.sub(r'"[^"]*"', '""', expression)
    documented = {**_documented(), "up": {"job"}}
    assert set(re.findall(r"\bkms_\w+|\bup\b", bare)) <= documented.keys()
    for name, selected in re.findall(r"\b(kms_\w+|up)(?:\{([^}]*)\})?", bare):
        assert set(re.findall(r"(\w+)\s*(?:=|!)", selected)) <= documented[name] | {"instance"}
    labels = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", bare))))
    everything = set().union(*(documented[name] for name in re.findall(r"\bkms_\w+", bare)))
    assert labels <= everything | {"instance"}


def test_operations_and_outcomes_that_are_selected_are_some() -> None:
    named = {"operation": set(OPERATIONS), "outcome": {"success", *every_refusal()}}
    for label, known in named.items():
        selected = re.findall(rf'\b{label}(?:=|!=|=~|!~)"([^"]*)"', " ".join(EXPRESSIONS))
        assert selected
        assert {value for values in selected for value in values.split("|")} <= known


@pytest.mark.parametrize("rule", _RULES, ids=[rule["alert"] for rule in _RULES])
def test_each_alert_says_what_to_do(rule: Any) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["annotations"]["description"].endswith(".")


def test_each_alert_is_tried() -> None:
    tried = (DEPLOY / "prometheus" / "rules_test.yaml").read_text()
    assert {rule["alert"] for rule in _RULES} == set(re.findall(r'\{alertname="(\w+)"\}', tried))


def test_prometheus_reads_the_rules_and_they_pass_their_tests() -> None:
    promtool = tool("promtool")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]):
        done = subprocess.run(
            [promtool, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_whole() -> None:
    """It names its data source by a variable, its panels have numbers of their own, and none lies on another."""
    panels = list(_panels())
    assert len({panel["id"] for panel in _DASHBOARD["panels"]}) == len(_DASHBOARD["panels"])
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert {each["name"] for each in _DASHBOARD["templating"]["list"]} == {"datasource", "node"}
    taken: set[tuple[int, int]] = set()
    for panel in _DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells
        taken |= cells


def test_what_the_page_of_metrics_asks_to_alert_on_has_an_alert() -> None:
    page = (DEPLOY.parent / "docs" / "reference" / "metrics.md").read_text()
    asked = set(re.findall(r"^\| `(kms_\w+)`.*\balert\b.*\|$", page, re.MULTILINE))
    assert len(asked) >= 4
    assert all(any(name in rule["expr"] for rule in _RULES) for name in asked)
