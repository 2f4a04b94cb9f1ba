"""docs/how-to/let-a-program-in.md as it is pasted: real curl, openssl and issuers, and the end of each way in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from helpers.oidc_issuer import OidcIssuer, serving
from helpers.running import Answer, Running, Start
from helpers.shell import ROOT, blocks, objects, run
from kms.access import claims

PAGE = "docs/how-to/let-a-program-in.md"
GITHUB = "https://token.actions.githubusercontent.com"
MOUNTED = "/var/run/secrets/kms"
CLUSTER = "https://kubernetes.default.svc.cluster.local"
ACCOUNT = "system:serviceaccount:prod:pay"
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
TEXT = (ROOT / PAGE).read_text()


@dataclass
class World:
    """A service, a cluster whose API server signs tokens, and a CI system that does."""

    service: Running
    cluster: OidcIssuer
    ci: OidcIssuer

    @property
    def folder(self) -> Path:
        """Where the page's lines are run."""
        return self.service.folder

    def paste(self, *scripts: str, **env: str) -> str:
        """Run lines of the page: with the service's port, this CI system in place of GitHub, and `kubectl`."""
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{self.service.environ['PATH']}"
        text = "".join(scripts).replace(GITHUB, self.ci.url).replace(MOUNTED, str(self.folder / "pod"))
        return run(self.service, text, PATH=path, CURL_CA_BUNDLE=str(self.ci.ca), **env)

    def kms(self, line: str) -> list[dict[str, Any]]:
        """What the command answers to the administrator."""
        return objects(self.paste(f"python -m kms {line}"))

    def fetch(self, path: str, *options: str) -> Answer:
        """GET something with these options of curl and no token of ours."""
        return self.service.curl("GET", path, None, *options, token="")

    def status(self, name: str) -> int:
        """How a list of keys is answered with the header that is in this file."""
        return self.fetch("/api/v1/keys", "-H", f"@{self.folder / name}").status


@pytest.fixture(scope="module")
def world(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With an administrator who is logged in, and the page's first client."""
    issuers = tmp_path_factory.mktemp("issuers")
    with serving(issuers / "cluster", issuer=CLUSTER) as cluster, serving(issuers / "ci") as ci:
        service = start(
            "--workers", "2", login=False, KMS_JWKS_HOSTS=ci.host, KMS_JWKS_CA=str(ci.ca)
        )  # fmt: skip
        made = World(service, cluster, ci)
        (service.folder / "bin").mkdir()
        kubectl = service.folder / "bin" / "kubectl"
        kubectl.write_text(
            f'#!/bin/sh\n[ "$1 $2" = "get --raw" ] && curl -sS --cacert {cluster.ca} {cluster.url}$3\n'
        )
        kubectl.chmod(0o700)
        made.paste("python -m kms login --credentials admin.json\n", *blocks(PAGE, "Make a client for the program"))
        yield made


@pytest.fixture(scope="module")
def program(world: World) -> World:
    """With a program that has logged in from the shell by its own key."""
    generate, add, log_in, *_ = blocks(PAGE, "By a key of its own")
    world.paste(generate, add)
    assert (world.folder / "pay.key").stat().st_mode & 0o777 == 0o600
    world.paste(log_in)
    return world


def test_a_program_logs_in_by_a_key_of_its_own(program: World) -> None:
    _, _, _, encrypt, install, by_python, by_command, *_ = blocks(PAGE, "By a key of its own")
    assert install == "pip install joserfc\n"
    assert objects(program.paste(encrypt))[0]["key_id"] == "orders-1"
    assert program.paste(by_python) == "['orders-1']\n"
    shown = program.paste(by_command)
    (known,) = program.kms("client keys pay")
    (who,) = objects(shown[shown.index("{") :])
    assert (who["client_id"], who["credential"]) == ("pay", f"key:{known['kid']}")
    names = {each["credential"] for each in program.kms("client credentials pay")}
    assert names == {"secret", "recovery-codes", f"key:{known['kid']}"}


def test_a_part_of_it_gets_less_and_ends_with_it(program: World) -> None:
    *_, log_in = blocks(PAGE, "By a key of its own")[:3]
    program.paste(log_in)
    (narrow,) = blocks(PAGE, "Give a part of a program less")
    (child,) = objects(program.paste(narrow))
    assert (child["scope"], child["expires_in"]) == ("keys:encrypt@orders-*", 300)
    token = str(child["access_token"])
    encrypt, keys = "/api/v1/keys/orders-1/encrypt", "/api/v1/keys"
    body = {"plaintext": "aGVsbG8="}
    assert program.service.curl("POST", encrypt, body, token=token).status == 200
    assert program.service.curl("POST", keys, {"type": "aes-256-gcm"}, token=token).status == 403
    assert program.status("pay.header") == 200
    assert program.service.curl("POST", "/auth/logout", None, "-H", f"@{program.folder / 'pay.header'}").status == 200
    assert program.service.curl("POST", encrypt, body, token=token).status == 401


def test_a_key_is_changed_without_downtime(program: World) -> None:
    *_, log_in = blocks(PAGE, "By a key of its own")[:3]
    *_, add, remove = blocks(PAGE, "By a key of its own")
    program.paste(log_in)
    by_the_new = log_in.replace("pay.key", "pay-2.key").replace("pay.header", "pay-2.header")
    assert program.status("pay.header") == 200
    added, *sessions, removed = objects(program.paste(add, by_the_new, "python -m kms client sessions pay\n", remove))
    assert {f"key:{each['kid']}" for each in (added, removed)} <= {each["credential"] for each in sessions}
    assert [program.status(name) for name in ("pay.header", "pay-2.header")] == [401, 200]
    again = run_to_its_end(program, log_in)
    assert again.returncode != 0
    assert "The credentials are not valid." in (program.folder / "pay.session").read_text()


def run_to_its_end(world: World, script: str) -> subprocess.CompletedProcess[str]:
    """`script`, which may fail."""
    environ = {**world.service.environ, "CURL_CA_BUNDLE": str(world.ci.ca)}
    text = script.replace("localhost:8443", f"localhost:{world.service.port}")
    text = text.replace(MOUNTED, str(world.folder / "pod"))
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=world.folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def pods(world: World) -> World:
    """With the cluster trusted, and the token of a pod where the page's pod has it."""
    trust, role, _ = blocks(PAGE, "From Kubernetes")
    world.paste(trust, role)
    pod = world.folder / "pod"
    pod.mkdir()
    (pod / "ca.crt").write_bytes((world.folder / "server.crt").read_bytes())
    named = {"namespace": "prod", "pod": {"name": "pay-7", "uid": "1"}, "serviceaccount": {"name": "pay", "uid": "2"}}
    token = world.cluster.token(ACCOUNT, aud=["kms"], **{"kubernetes.io": named})
    (pod / "token").write_text(token)
    return world


def test_a_pod_logs_in_by_its_service_account(pods: World) -> None:
    *_, in_the_pod = blocks(PAGE, "From Kubernetes")
    assert objects(pods.paste(in_the_pod))[0]["key_id"] == "orders-1"
    assert json.loads((pods.folder / "session").read_text())["expires_in"] == 600
    subjects = {each.get("subject") for each in pods.kms("client sessions pay")}
    assert f"{CLUSTER} {ACCOUNT}" in subjects


def test_what_the_pod_mounts_is_what_the_role_and_the_lines_name() -> None:
    manifest = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)[0]
    (account, namespace) = re.search(r"name: (\w+)\n  namespace: (\w+)", manifest).groups()  # type: ignore[union-attr]
    assert f"sub=system:serviceaccount:{namespace}:{account}" in "".join(blocks(PAGE, "From Kubernetes"))
    assert f"mountPath: {MOUNTED}\n" in manifest
    assert "audience: kms\n" in manifest
    assert re.findall("path: (.*)", manifest) == ["token", "ca.crt"]


def test_an_aws_sdk_logs_in_by_itself(pods: World) -> None:
    assert pods.paste(*blocks(PAGE, "With an AWS SDK")) == "b'hello'\n"


@pytest.fixture(scope="module")
def job(world: World) -> dict[str, str]:
    """With GitHub's place taken by an issuer of ours; what a job of the main branch finds in its environment."""
    _, trust, role = blocks(PAGE, "From a CI job")[:3]
    world.paste(trust, role)
    on_branch(world, "refs/heads/main")
    (world.folder / "app.tar").write_bytes(b"a release")
    return {
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": world.ci.request_token,
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{world.ci.url}/token?api-version=2.0",
    }


def on_branch(world: World, ref: str, repository: str = "example/app") -> None:
    """The CI system runs a job there."""
    world.ci.job = {
        "sub": f"repo:{repository}:ref:{ref}",
        "repository": repository,
        "repository_owner": repository.split("/")[0],
        "repository_id": "74",
        "ref": ref,
        "ref_type": "branch",
        "workflow": "release",
        "event_name": "push",
    }


def test_a_job_signs_without_a_secret(world: World, job: dict[str, str]) -> None:
    hosts, *_, in_the_job = blocks(PAGE, "From a CI job")
    assert hosts == f"export KMS_JWKS_HOSTS={GITHUB.removeprefix('https://')}\n"
    world.paste(in_the_job, **job)
    signature = json.loads((world.folder / "signature.json").read_text())
    assert signature["key_id"] == "releases"
    on_branch(world, "refs/heads/release-1")
    world.paste(in_the_job, **job)
    for ref, repository in (("refs/heads/release-1/x", "example/app"), ("refs/heads/main", "example/app2")):
        on_branch(world, ref, repository)
        world.service.environ |= job
        refused = run_to_its_end(world, in_the_job)
        assert refused.returncode != 0
        assert "The role asks for another re" in (world.folder / "session").read_text()


def aws_client(pods: World) -> Any:
    """An AWS client with the keys that STS gives to the pod."""
    where = {
        "region_name": "us-east-1",
        "endpoint_url": pods.service.url,
        "verify": str(pods.folder / "server.crt"),
    }
    given = boto3.client("sts", config=Config(signature_version=UNSIGNED), **where).assume_role_with_web_identity(
        RoleArn="arn:aws:iam::000000000000:role/pay-pods",
        RoleSessionName="pod",
        WebIdentityToken=(pods.folder / "pod" / "token").read_text(),
    )["Credentials"]
    return boto3.client(
        "kms",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        **where,
    )


def test_the_end_of_a_role_and_of_an_issuer_holds_at_once(pods: World, job: dict[str, str]) -> None:
    *_, in_the_job = blocks(PAGE, "From a CI job")
    *_, in_the_pod = blocks(PAGE, "From Kubernetes")
    on_branch(pods, "refs/heads/main")
    pods.service.environ |= job
    aws = aws_client(pods)
    assert aws.list_keys()["Keys"]
    for way, end in (
        (in_the_pod, "issuer remove-role pay-pods --yes"),
        (in_the_job, f"issuer remove {pods.ci.url} --yes"),
    ):
        pods.paste(way, **job)
        assert pods.status("header") == 200
        pods.kms(end)
        assert pods.status("header") == 401
        assert run_to_its_end(pods, way).returncode != 0
        assert "The credentials are not valid." in (pods.folder / "session").read_text()
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        aws.list_keys()
    assert pods.kms("issuer roles") == []
    assert [each["issuer"] for each in pods.kms("issuer list")] == [CLUSTER]


def test_prometheus_scrapes_with_a_token_that_lives_long(world: World) -> None:
    world.paste(*blocks(PAGE, "Scrape metrics"))
    (configuration,) = re.findall(r"^```yaml\n(scrape_configs.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    name = re.search(r"credentials_file: (\S+)", configuration)[1]  # type: ignore[index]
    file = world.folder / name
    assert file.stat().st_mode & 0o777 == 0o600
    bearer = f"Authorization: Bearer {file.read_text().strip()}"
    scraped = world.fetch("/metrics", "-H", bearer, "-H", f"Accept: {OPENMETRICS}")
    assert scraped.status == 200
    assert "kms_requests_total" in scraped.text
    assert world.fetch("/api/v1/audit/entries", "-H", bearer).status == 403
    (session,) = world.kms("client sessions prometheus")
    assert session["scope"] == "metrics:read"
    assert int(session["expires_at"][:4]) > int(session["issued_at"][:4])
    world.kms(f"client end-session prometheus {session['session_id']}")
    assert world.fetch("/metrics", "-H", bearer).status == 401


def test_a_pattern_takes_what_the_page_says() -> None:
    rows = re.findall(r"^\| (`\S+[:/]\S+`) \| (`.*`) \| (`.*`) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 6
    for pattern, takes, does_not in ((re.findall("`([^`]+)`", cell) for cell in row) for row in rows):
        for bound in pattern:
            claims.bound_claims({"ref": bound})
            assert [each for each in takes if not claims.matches(bound, each)] == []
            assert [each for each in does_not if claims.matches(bound, each)] == []


def test_what_the_page_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        page, _, anchor = target.partition("#")
        path = (ROOT / PAGE).parent / page if page else ROOT / PAGE
        headings = re.findall("^#+ (.*)$", path.read_text(), re.MULTILINE)
        anchors = {re.sub("[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, target
