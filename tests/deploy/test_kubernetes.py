"""deploy/kubernetes: valid by the schemas of Kubernetes, confined, and with nothing secret in it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from helpers.deployed import DEPLOY, documents, tool
from helpers.shell import blocks

_FOLDER = DEPLOY / "kubernetes"
_NAMES = [path.name for path in sorted(_FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"]
OBJECTS = [each for name in _NAMES for each in documents(f"kubernetes/{name}")]
_OLDEST, _NEWEST = "1.30", "1.37"  # what docs/how-to/deploy.md says, and the newest whose schemas there are


def _one(kind: str) -> Any:
    (found,) = [each for each in OBJECTS if each["kind"] == kind]
    return found


POD = _one("StatefulSet")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


@pytest.mark.parametrize("version", [_OLDEST, _NEWEST])
@pytest.mark.parametrize("found", OBJECTS, ids=[f"{each['kind']}-{each['metadata']['name']}" for each in OBJECTS])
def test_kubernetes_takes_it(found: Any, version: str) -> None:
    validate(found, version, strict=True)


def test_kustomize_builds_it_with_and_without_the_operator_s_part(tmp_path: Any) -> None:
    kubectl = tool("kubectl")
    built = list(yaml.safe_load_all(subprocess.check_output([kubectl, "kustomize", _FOLDER], text=True)))
    assert len(built) == len(OBJECTS)
    for each in built:
        validate(each, _NEWEST, strict=True)
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "kms"
    command = ["cp", "-r", _FOLDER, tmp_path / "copy"]
    subprocess.run(command, check=True)
    kustomization = tmp_path / "copy" / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("# components:\n#   - ", "components:\n  - "))
    built = list(yaml.safe_load_all(subprocess.check_output([kubectl, "kustomize", tmp_path / "copy"], text=True)))
    assert "ServiceMonitor" in {each["kind"] for each in built}


def test_the_pods_are_restricted() -> None:
    """As the Pod Security Standard of that name has it, which the namespace enforces; and with a read-only root."""
    pod, container = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert _one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["runAsNonRoot"]
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert container["readOnlyRootFilesystem"]
    kinds = {next(iter(volume.keys() - {"name"})) for volume in POD["spec"]["volumes"]}
    assert kinds == {"secret", "persistentVolumeClaim"}
    assert POD["spec"]["automountServiceAccountToken"] is False


def test_the_user_is_the_image_s() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    context = POD["spec"]["securityContext"]
    assert (str(context["runAsUser"]), str(context["fsGroup"])) == user


def test_every_selector_finds_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for each in OBJECTS if each["kind"] == "Service"]
    selectors += [_one(kind)["spec"]["selector"]["matchLabels"] for kind in ("StatefulSet", "PodDisruptionBudget")]
    selectors.append(_one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert _one("StatefulSet")["spec"]["serviceName"] == "kms-nodes"
    (monitor,) = documents("kubernetes/monitoring/service-monitor.yaml")
    found = [
        each["metadata"]["name"]
        for each in OBJECTS
        if each["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"].get("labels", {}).items()
    ]
    assert found == ["kms"]


def test_probes_speak_tls_to_the_port() -> None:
    probes = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {name: each["path"] for name, each in probes.items()} == {
        "startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"
    }  # fmt: skip
    assert all((each["scheme"], each["port"]) == ("HTTPS", "https") for each in probes.values())


def test_secrets_are_named_and_made_by_the_page() -> None:
    assert "Secret" not in {each["kind"] for each in OBJECTS}
    page = "".join(blocks("docs/how-to/deploy.md", "In Kubernetes"))
    mounted = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    paths = [each["value"] for each in CONTAINER["env"] if str(each["value"]).startswith("/run/secrets/")]
    for volume in (each for each in POD["spec"]["volumes"] if "secret" in each):
        name = volume["secret"]["secretName"]
        (making,) = re.findall(rf"create secret generic {name} (.*)", page.replace("\\\n", ""))
        keys = re.findall(r"--from-file=([\w.-]+)=", making)
        used = [path for path in paths if path.startswith(mounted[volume["name"]] + "/")]
        assert used
        assert {path.rpartition("/")[2] for path in used} <= set(keys)
    assert "kms-metrics-token" in page
    assert "kms-metrics-token" in json.dumps(list(documents("kubernetes/monitoring/service-monitor.yaml")))


def test_all_pods_share_the_audit_log() -> None:
    claim = _one("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (volume,) = (each for each in POD["spec"]["volumes"] if "persistentVolumeClaim" in each)
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mounted,) = (each["mountPath"] for each in CONTAINER["volumeMounts"] if each["name"] == volume["name"])
    (directory,) = (each["value"] for each in CONTAINER["env"] if each["name"] == "KMS_AUDIT_DIR")
    assert directory.startswith(f"{mounted}/")
