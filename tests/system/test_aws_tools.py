"""The AWS command line, the AWS Encryption SDK and sops, as their makers publish them, against the real service."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import certifi
import pyotp
import pytest
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl import models as mpl
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptography_primitives.smithygenerated.aws_cryptography_primitives.models import ECDHCurveSpec
from aws_encryption_sdk import EncryptionSDKClient, StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from aws_encryption_sdk.identifiers import AlgorithmSuite
from botocore.session import Session
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from helpers.aws_client import REGION, Account, Kms
from helpers.running import Running, Start
from helpers.shell import blocks, run
from helpers.support import unb64
from helpers.tokens import PlatformIssuer

SOPS = "github.com/getsops/sops/v3/cmd/sops@v3.13.3"
CONTEXT = {"tenant": "7", "purpose": "invoices"}


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "2", "--rate-limit", "off")


@pytest.fixture(scope="module")
def account(service: Running) -> Account:
    return Account(service, service.user("amy"))


@pytest.fixture(scope="module")
def kms(account: Account) -> Kms:
    return account.kms()


@pytest.fixture(scope="module")
def environ(service: Running, account: Account) -> dict[str, str]:
    """All that a program finds: of the environment that the tests run in, only the path."""
    key, certificate = account.access_key(), str(service.folder / "server.crt")
    return {
        "HOME": str(service.folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_KMS": service.url,
        "AWS_CA_BUNDLE": certificate,
        "AWS_MAX_ATTEMPTS": "1",  # what fails once has failed
        "VAULT_TOKEN": account.token,
        "VAULT_CACERT": certificate,
    }


@dataclass
class Program:
    """A program that runs in a folder of its own."""

    words: tuple[str, ...]
    environ: dict[str, str]
    folder: Path

    def __call__(self, *words: str, **env: str) -> str:
        """What it prints."""
        done = self._run(words, env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refusal(self, *words: str, **env: str) -> tuple[int, str]:
        """The exit code with which it fails, and what it says then, in one line."""
        done = self._run(words, env)
        assert (done.returncode != 0, done.stdout) == (True, "")
        return done.returncode, " ".join(done.stderr.split())

    def file(self, name: str, content: bytes) -> str:
        """A new file in the folder; its name."""
        (self.folder / name).write_bytes(content)
        return name

    def _run(self, words: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, *words],
            cwd=self.folder,
            env={**self.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
        )


@dataclass
class Aws:
    """The AWS command line; `aws("encrypt", key_id="x")` is `aws kms encrypt --key-id x`."""

    program: Program

    def __call__(self, operation: str, **options: str | list[str]) -> dict[str, Any]:
        printed = self.program(*self._words(operation, options))
        return dict(json.loads(printed)) if printed else {}

    def refusal(self, operation: str, **options: str) -> tuple[int, str]:
        return self.program.refusal(*self._words(operation, options))

    def file(self, name: str, content: bytes) -> str:
        """A new file, as an argument."""
        return f"fileb://{self.program.file(name, content)}"

    @staticmethod
    def _words(operation: str, options: Mapping[str, str | list[str]]) -> list[str]:
        words = ["kms", operation]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", *([value] if isinstance(value, str) else value)]
        return words


@pytest.fixture
def aws(environ: dict[str, str], tmp_path: Path) -> Aws:
    return Aws(Program(("aws",), environ, tmp_path))


def arn(kms: Kms, **given: Any) -> str:
    """The ARN of a new key."""
    return str(kms.create_key(**given)["KeyMetadata"]["Arn"])


def test_the_cli_makes_a_key_and_names_it(aws: Aws, kms: Kms) -> None:
    made = aws("create-key", description="orders", tags=["TagKey=env,TagValue=prod"])["KeyMetadata"]
    assert (made["Description"], made["KeyState"], made["Enabled"]) == ("orders", "Enabled", True)
    aws("create-alias", alias_name="alias/cli", target_key_id=made["KeyId"])
    alias = made["Arn"].replace(f"key/{made['KeyId']}", "alias/cli")
    for name in (made["Arn"], "alias/cli"):
        assert aws("describe-key", key_id=name)["KeyMetadata"] == made
    (listed,) = aws("list-aliases", key_id=made["KeyId"])["Aliases"]
    assert (listed["AliasArn"], listed["TargetKeyId"]) == (alias, made["KeyId"])
    other = arn(kms)
    aws("update-alias", alias_name="alias/cli", target_key_id=other)
    assert aws("describe-key", key_id=alias)["KeyMetadata"]["Arn"] == other
    aws("delete-alias", alias_name="alias/cli")
    refused = "An error occurred (NotFoundException) when calling the DescribeKey operation: Alias {} is not found."
    assert aws.refusal("describe-key", key_id="alias/cli") == (255, refused.format(alias))


def test_the_cli_opens_a_file_in_its_context_only(aws: Aws, kms: Kms) -> None:
    key, content = arn(kms), bytes(range(256))
    sealed = aws(
        "encrypt", key_id=key, plaintext=aws.file("plain", content), encryption_context="order=42,customer=7"
    )
    assert sealed["KeyId"] == key
    blob = aws.file("sealed", unb64(sealed["CiphertextBlob"]))
    opened = aws("decrypt", ciphertext_blob=blob, encryption_context="customer=7,order=42")
    assert (unb64(opened["Plaintext"]), opened["KeyId"]) == (content, key)
    refused = aws.refusal("decrypt", ciphertext_blob=blob, encryption_context="order=43,customer=7")
    assert refused == (255, "An error occurred (InvalidCiphertextException) when calling the Decrypt operation:")


def test_the_cli_opens_the_data_key_that_it_was_given(aws: Aws, kms: Kms) -> None:
    key, context = arn(kms), "order=42"
    made = aws("generate-data-key", key_id=key, key_spec="AES_256", encryption_context=context)
    assert len(unb64(made["Plaintext"])) == 32
    blob = aws.file("data-key", unb64(made["CiphertextBlob"]))
    opened = aws("decrypt", key_id=key, ciphertext_blob=blob, encryption_context=context)
    assert opened["Plaintext"] == made["Plaintext"]


def test_a_pod_needs_three_variables(service: Running, environ: dict[str, str], tmp_path: Path) -> None:
    """AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ENDPOINT_URL, for the CLI and for boto3."""
    issuer, admin = PlatformIssuer(), service.login(service.admin)
    service.enrol("pod")
    trusted = {"issuer": issuer.issuer, "audience": issuer.audience, "jwks": issuer.jwks}
    assert service.curl("POST", "/api/v1/issuers", trusted, token=admin).status == 201
    subject = "system:serviceaccount:prod:pod"
    role = {"role": "pod", "issuer": issuer.issuer, "claims": {"sub": subject}, "client_id": "pod"}
    assert service.curl("POST", "/api/v1/issuer-roles", role, token=admin).status == 201
    (tmp_path / "token").write_text(issuer.token(subject))
    found = {name: value for name, value in environ.items() if "ACCESS_KEY" not in name and "ENDPOINT" not in name}
    found |= {
        "AWS_ROLE_ARN": "arn:aws:iam::000000000000:role/pod",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL": service.url,
        "HOME": str(tmp_path),
    }
    aws = Program(("aws",), found, tmp_path)
    identity = json.loads(aws("sts", "get-caller-identity"))
    assert identity["Arn"].startswith("arn:aws:sts::000000000000:assumed-role/pod/")
    key = json.loads(aws("kms", "create-key"))["KeyMetadata"]["KeyId"]
    program = (
        "import boto3; kms = boto3.client('kms'); "
        f"sealed = kms.encrypt(KeyId='{key}', Plaintext=b'x')['CiphertextBlob']; "
        "print(kms.decrypt(CiphertextBlob=sealed)['Plaintext'].decode())"
    )
    boto = Program((sys.executable, "-c"), found, tmp_path)
    assert boto(program) == "x\n"
    assert service.curl("DELETE", "/api/v1/issuer-roles/pod", token=admin).status == 200
    assert "UnrecognizedClientException" in aws.refusal("kms", "list-keys")[1]  # under the keys that it has kept
    assert "InvalidIdentityToken" in boto.refusal(program)[1]


def test_the_cli_asks_for_the_code_of_a_profile(service: Running, environ: dict[str, str]) -> None:
    """`mfa_serial` in a profile, as the page has it; the access key that lives long does nothing without a code."""
    made = service.enrol(getpass.getuser())
    (service.folder / "me.json").write_text(json.dumps(made))
    run(service, "python -m kms login --credentials me.json")
    (script,) = blocks("docs/how-to/aws-clients.md", "With a code of the authenticator app")
    run(service, script)
    found = {name: value for name, value in environ.items() if "ACCESS_KEY" not in name}
    found["AWS_ENDPOINT_URL"] = service.url
    aws = Program(("aws",), found, service.folder)
    assert "needs a second factor" in aws.refusal("kms", "list-keys", "--profile", "long")[1]
    code = pyotp.TOTP(made["totp_secret"]).at(time.time() + 30)  # that of now has logged in
    printed = at_a_terminal(["aws", "kms", "create-key", "--profile", "me"], found, "MFA code", code)
    assert '"KeyState": "Enabled"' in printed, printed


def at_a_terminal(command: list[str], environ: dict[str, str], prompt: str, answer: str) -> str:
    """What a program prints that asks for something and is given the answer."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(theirs)
        printed, is_answered = b"", False
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that nobody has the other end open
                break
            if not part:
                break
            printed += part
            if not is_answered and prompt.encode() in printed:
                os.write(ours, f"{answer}\n".encode())
                is_answered = True
        assert process.wait() == 0, printed
    os.close(ours)
    return printed.decode()


def test_the_cli_signs_what_openssl_verifies(aws: Aws, kms: Kms) -> None:
    asked = {
        "key_id": arn(kms, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"),
        "signing_algorithm": "ECDSA_SHA_256",
    }
    message = aws.file("message", b"message")
    signature = aws.file("signature", unb64(aws("sign", message=message, **asked)["Signature"]))
    assert aws("verify", message=message, signature=signature, **asked)["SignatureValid"] is True
    refused = aws.refusal("verify", message=aws.file("other", b"another"), signature=signature, **asked)
    assert refused == (255, "An error occurred (KMSInvalidSignatureException) when calling the Verify operation:")
    aws.file("public", unb64(aws("get-public-key", key_id=asked["key_id"])["PublicKey"]))
    openssl = replace(aws.program, words=("openssl", "dgst", "-sha256", "-verify", "public", "-keyform", "DER"))
    assert openssl("-signature", "signature", "message") == "Verified OK\n"


def test_the_cli_tags(aws: Aws, kms: Kms) -> None:
    key = arn(kms, Tags=[{"TagKey": "env", "TagValue": "test"}, {"TagKey": "team", "TagValue": "blue"}])
    aws("tag-resource", key_id=key, tags=["TagKey=env,TagValue=prod", "TagKey=cost centre,TagValue=7"])
    aws("untag-resource", key_id=key, tag_keys=["team"])
    tags = {each["TagKey"]: each["TagValue"] for each in aws("list-resource-tags", key_id=key)["Tags"]}
    assert tags == {"env": "prod", "cost centre": "7"}


def test_the_cli_is_told_why_a_use_is_refused(aws: Aws, kms: Kms) -> None:
    key, plain = arn(kms), aws.file("plain", b"hello")
    aws("disable-key", key_id=key)
    refused = "An error occurred ({}) when calling the Encrypt operation: " + key
    disabled = (255, refused.format("DisabledException") + " is disabled.")
    assert aws.refusal("encrypt", key_id=key, plaintext=plain) == disabled
    aws("enable-key", key_id=key)
    assert aws("encrypt", key_id=key, plaintext=plain)["KeyId"] == key
    gone = aws("schedule-key-deletion", key_id=key, pending_window_in_days="7")
    assert (gone["KeyState"], gone["PendingWindowInDays"]) == ("PendingDeletion", 7)
    pending = (255, refused.format("KMSInvalidStateException") + " is pending deletion.")
    assert aws.refusal("encrypt", key_id=key, plaintext=plain) == pending
    assert aws("cancel-key-deletion", key_id=key) == {"KeyId": key}
    assert aws("describe-key", key_id=key)["KeyMetadata"]["KeyState"] == "Disabled"
    aws("enable-key", key_id=key)
    assert aws("encrypt", key_id=key, plaintext=plain)["KeyId"] == key


def test_the_cli_goes_through_the_pages_of_a_list(aws: Aws, kms: Kms) -> None:
    made = {kms.key() for _ in range(5)}
    first = aws("list-keys", page_size="2", max_items="3")
    rest = aws("list-keys", page_size="2", starting_token=first["NextToken"])
    assert (len(first["Keys"]), "NextToken" in rest) == (3, False)
    listed = [each["KeyId"] for each in first["Keys"] + rest["Keys"]]
    assert listed == [each["KeyId"] for each in kms.list_keys(Limit=1000)["Keys"]]
    assert made <= set(listed)


def test_the_cli_needs_its_own_secret_and_the_right_certificate(aws: Aws, environ: dict[str, str]) -> None:
    for name, value, expected in (
        ("AWS_ACCESS_KEY_ID", "AKIA" + "A" * 16, "(UnrecognizedClientException)"),
        ("AWS_SECRET_ACCESS_KEY", environ["AWS_SECRET_ACCESS_KEY"].swapcase(), "(InvalidSignatureException)"),
        ("AWS_CA_BUNDLE", certifi.where(), "CERTIFICATE_VERIFY_FAILED"),
    ):
        code, message = aws.program.refusal("kms", "list-keys", **{name: value})
        assert (code, expected in message) == (255, True), message


PROVIDERS = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
SDK = EncryptionSDKClient()


def keyring(kms: Kms, key: str) -> Any:
    return PROVIDERS.create_aws_kms_keyring(mpl.CreateAwsKmsKeyringInput(kms_key_id=key, kms_client=kms.client))


def test_the_encryption_sdk_opens_a_long_message_in_its_context(kms: Kms) -> None:
    ring, content = keyring(kms, arn(kms)), bytes(range(256)) * 4000
    sealed, _ = SDK.encrypt(source=content, keyring=ring, encryption_context=CONTEXT, frame_length=4096)
    opened, header = SDK.decrypt(source=sealed, keyring=ring, encryption_context=CONTEXT)
    assert opened == content
    assert header.encryption_context.items() >= CONTEXT.items()
    with pytest.raises(AWSEncryptionSDKClientError, match="context does not match"):
        SDK.decrypt(source=sealed, keyring=ring, encryption_context={**CONTEXT, "purpose": "letters"})


def test_the_encryption_sdk_opens_with_either_of_two_keys(kms: Kms) -> None:
    keys = [arn(kms) for _ in range(3)]
    one, two, stranger = (keyring(kms, key) for key in keys)
    both = PROVIDERS.create_multi_keyring(mpl.CreateMultiKeyringInput(generator=one, child_keyrings=[two]))
    sealed, header = SDK.encrypt(source=b"hello", keyring=both, encryption_context=CONTEXT)
    assert {each.key_provider.key_info.decode() for each in header.encrypted_data_keys} == set(keys[:2])
    any_key = PROVIDERS.create_aws_kms_discovery_keyring(mpl.CreateAwsKmsDiscoveryKeyringInput(kms_client=kms.client))
    for ring in (one, two, both, any_key):
        assert SDK.decrypt(source=sealed, keyring=ring)[0] == b"hello"
    with pytest.raises(AWSEncryptionSDKClientError, match="No Encrypted Data Keys found to match"):
        SDK.decrypt(source=sealed, keyring=stranger)
    kms.disable_key(KeyId=keys[0])
    assert SDK.decrypt(source=sealed, keyring=both)[0] == b"hello"
    with pytest.raises(AWSEncryptionSDKClientError, match="was able to decrypt"):
        SDK.decrypt(source=sealed, keyring=one)


def test_the_encryption_sdk_refuses_an_altered_message(service: Running, kms: Kms) -> None:
    key = arn(kms)
    ring = keyring(kms, key)
    sealed, header = SDK.encrypt(source=b"hello", keyring=ring, encryption_context=CONTEXT)
    (data_key,) = header.encrypted_data_keys

    def altered(at: int) -> bytes:
        return sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]

    # The service notices the one in the context and the one in the data key, the SDK the one in its own signature.
    for at in (sealed.index(b"invoices"), sealed.index(data_key.encrypted_data_key) + 50):
        with pytest.raises(AWSEncryptionSDKClientError, match="was able to decrypt"):
            SDK.decrypt(source=altered(at), keyring=ring)
    entries = service.curl("GET", "/api/v1/audit/entries?limit=2").json["items"]
    assert [each["outcome"] for each in entries] == ["decryption-failed"] * 2
    assert {each["key_id"] for each in entries} == {key.rpartition("/")[2]}
    with pytest.raises(InvalidSignature):
        SDK.decrypt(source=altered(len(sealed) - 1), keyring=ring)
    assert SDK.decrypt(source=sealed, keyring=ring)[0] == b"hello"


def test_the_encryption_sdk_wraps_with_rsa(kms: Kms) -> None:
    key = arn(kms, KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    ring = PROVIDERS.create_aws_kms_rsa_keyring(
        mpl.CreateAwsKmsRsaKeyringInput(
            public_key=pem, kms_key_id=key, encryption_algorithm="RSAES_OAEP_SHA_256", kms_client=kms.client
        )
    )
    unsigned = AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY  # this keyring takes no others
    sealed, _ = SDK.encrypt(source=b"hello", keyring=ring, encryption_context=CONTEXT, algorithm=unsigned)
    assert SDK.decrypt(source=sealed, keyring=ring)[0] == b"hello"


def test_the_encryption_sdk_agrees_on_a_key(kms: Kms) -> None:
    sender, recipient = (arn(kms, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT") for _ in range(2))
    sending = mpl.KmsEcdhStaticConfigurationsKmsPrivateKeyToStaticPublicKey(
        mpl.KmsPrivateKeyToStaticPublicKeyInput(
            sender_kms_identifier=sender, recipient_public_key=kms.get_public_key(KeyId=recipient)["PublicKey"]
        )
    )
    receiving = mpl.KmsEcdhStaticConfigurationsKmsPublicKeyDiscovery(
        mpl.KmsPublicKeyDiscoveryInput(recipient_kms_identifier=recipient)
    )
    one, two = (
        PROVIDERS.create_aws_kms_ecdh_keyring(
            mpl.CreateAwsKmsEcdhKeyringInput(
                kms_client=kms.client, curve_spec=ECDHCurveSpec.ECC_NIST_P256, key_agreement_scheme=scheme
            )
        )
        for scheme in (sending, receiving)
    )
    sealed, _ = SDK.encrypt(source=b"hello", keyring=one, encryption_context=CONTEXT)
    assert SDK.decrypt(source=sealed, keyring=two)[0] == b"hello"


def test_the_encryption_sdk_of_before_keyrings_reads_the_same_messages(
    kms: Kms, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in environ:
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, environ[name])
    keys = [arn(kms) for _ in range(2)]
    provider = StrictAwsKmsMasterKeyProvider(key_ids=keys, botocore_session=Session())
    sealed, _ = SDK.encrypt(source=b"hello", key_provider=provider, encryption_context=CONTEXT)
    for key in keys:
        assert SDK.decrypt(source=sealed, keyring=keyring(kms, key))[0] == b"hello"
    sealed, _ = SDK.encrypt(source=b"hello", keyring=keyring(kms, keys[1]), encryption_context=CONTEXT)
    assert SDK.decrypt(source=sealed, key_provider=provider)[0] == b"hello"


@pytest.fixture(scope="module")
def sops_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The one on the path, or one that Go fetches and builds: minutes the first time, seconds from its cache."""
    found = shutil.which("sops")
    if found is None and shutil.which("go") is None:
        pytest.skip("there is neither sops nor Go to build it with")
    if found is None:
        folder = tmp_path_factory.mktemp("go")
        built = subprocess.run(["go", "install", SOPS], env={**os.environ, "GOBIN": str(folder)}, check=False)
        if built.returncode:
            pytest.skip("Go could not fetch sops")
        found = str(folder / "sops")
    return found


@pytest.fixture
def sops(sops_program: str, environ: dict[str, str], tmp_path: Path) -> Program:
    return Program((sops_program,), environ, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["aws", "vault"])
def test_sops_keeps_a_file(service: Running, account: Account, kms: Kms, sops: Program, dialect: str) -> None:
    if dialect == "aws":
        name = arn(kms)
        flags = ["--kms", name, "--encryption-context", "order:42,customer:7"]
        key, refused = name.rpartition("/")[2], "DisabledException"
    else:
        key, refused = "sops", "Code: 400. Errors: | | * Version 1 of this key is suspended."
        made = service.curl("POST", f"/v1/transit/keys/{key}", {}, token=account.token)
        assert made.status == 200, made.text
        flags = ["--hc-vault-transit", f"{service.url}/v1/transit/keys/{key}"]

    def change(state: str) -> None:
        answer = service.curl("POST", f"/api/v1/keys/{key}/{state}", {}, token=account.token)
        assert answer.status == 200, answer.text

    file = sops.file("secrets.yaml", b"password: hello\n")
    sops("encrypt", "--in-place", *flags, file)
    assert "hello" not in (sops.folder / file).read_text()
    assert sops("decrypt", file) == "password: hello\n"
    sops("edit", file, EDITOR="sed -i s/hello/goodbye/")
    assert sops("decrypt", file) == "password: goodbye\n"
    sops("rotate", "--in-place", file)  # a new data key
    assert sops("decrypt", file) == "password: goodbye\n"
    change("suspend")
    code, message = sops.refusal("decrypt", file)
    assert (code, refused in message) == (128, True), message
    change("resume")
    assert sops("decrypt", file) == "password: goodbye\n"


def test_the_how_to_is_run_as_it_is_pasted(service: Running) -> None:
    page = "docs/how-to/aws-clients.md"
    sections = ("Get an access key", "With the AWS command line", "With the AWS Encryption SDK")
    run(service, "python -m kms login --credentials admin.json")
    script = "".join(block for section in sections for block in blocks(page, section)).replace("pip install", ": ")
    printed = run(service, script).splitlines()
    assert "hello" in printed
    assert printed[-1] == "b'hello'"
