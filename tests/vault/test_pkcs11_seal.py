"""The seal `pkcs11`, with the tokens of SoftHSM2."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.softhsm import PIN, SoftHsm
from kms.config import Settings
from kms.errors import StartAgainHarms, StartError
from kms.vault.opening import open_vault, stored_keyslots
from kms.vault.sealing import SealBroken
from kms.vault.seals import pkcs11_token
from kms.vault.seals.pkcs11 import Pkcs11Seal

pkcs11 = pytest.importorskip("pkcs11")
CONTEXT = b"keyset of a vault"


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """One token `kms`, which has no key yet."""
    made = SoftHsm.in_folder(tmp_path / "hsm")
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    made.make_token()
    return made


@contextmanager
def session_of(hsm: SoftHsm, label: str = "kms") -> Iterator[Any]:
    """A session as an operator's own tool has it."""
    module = pkcs11.lib(str(hsm.module))
    try:
        with module.get_token(token_label=label).open(rw=True, user_pin=PIN) as session:
            yield session
    finally:
        module.finalize()


def key_with(session: Any, **attributes: bool) -> Any:
    template = {pkcs11.Attribute[name]: value for name, value in attributes.items()}
    capabilities = pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT
    return session.generate_key(
        pkcs11.KeyType.AES, 256, label="kms", store=True, capabilities=capabilities, template=template
    )


def refusal(settings: Settings) -> str:
    with pytest.raises(StartError) as refused:
        open_vault(settings)
    return str(refused.value)


def test_the_key_is_made_once_and_cannot_leave_the_token(hsm: SoftHsm, tmp_path: Path) -> None:
    settings = hsm.settings(tmp_path / "data")
    vault = open_vault(settings)
    keyset = vault.derived_keys.keyset
    vault.close()
    with session_of(hsm) as session:
        (key,) = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})
        assert key.label == "kms"
        assert key.key_type == pkcs11.KeyType.AES
        assert key[pkcs11.Attribute.VALUE_LEN] == 32
        kept = {"SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "PRIVATE"}
        assert all(key[pkcs11.Attribute[name]] for name in kept)
        assert not key[pkcs11.Attribute.EXTRACTABLE]
        with pytest.raises(pkcs11.AttributeSensitive):
            _ = key[pkcs11.Attribute.VALUE]
    again = open_vault(settings)
    assert again.derived_keys.keyset == keyset
    with again.engine.connect() as connection:
        (slot,) = stored_keyslots(connection)
    assert slot.seal == '{"name":"pkcs11","parameters":{"mechanism":"AES_GCM"}}'
    again.close()


def test_the_module_is_not_left_to_forked_processes(hsm: SoftHsm, tmp_path: Path) -> None:
    """They have what was unsealed, and the module that they inherited knows no session."""
    vault = open_vault(hsm.settings(tmp_path / "data"))
    module = pkcs11._loaded[str(hsm.module)]
    assert not module.initialized
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def in_worker() -> None:
        opened = open_vault(Settings(data_dir=tmp_path / "data", seal="pkcs11"), vault.unsealed)
        answers.put((opened.derived_keys.keyset == vault.derived_keys.keyset, module.initialized))

    worker = multiprocessing.get_context("fork").Process(target=in_worker)
    worker.start()
    worker.join(30)
    assert answers.get() == (True, False)
    vault.close()


@pytest.mark.parametrize("mechanism", ["AES_GCM", "AES_CBC"])
def test_each_mechanism(hsm: SoftHsm, tmp_path: Path, mechanism: str) -> None:
    seal = Pkcs11Seal(hsm.settings(tmp_path, seal_pkcs11_mechanism=mechanism))
    parameters = seal.create()
    assert parameters == {"mechanism": mechanism}
    wrapped = seal.wrap(b"keyset", CONTEXT, parameters)
    assert wrapped != seal.wrap(b"keyset", CONTEXT, parameters)
    assert b"keyset" not in wrapped
    assert seal.unwrap(wrapped, CONTEXT, parameters) == b"keyset"
    assert Pkcs11Seal(hsm.settings(tmp_path)).unwrap(wrapped, CONTEXT, parameters) == b"keyset"
    for altered in (wrapped[:40] + bytes([wrapped[40] ^ 1]) + wrapped[41:], wrapped[:-1], wrapped[:30], b""):
        with pytest.raises(SealBroken):
            seal.unwrap(altered, CONTEXT, parameters)
    with pytest.raises(SealBroken):
        seal.unwrap(wrapped, b"keyset of another", parameters)
    other = {"mechanism": "AES_CBC" if mechanism == "AES_GCM" else "AES_GCM"}
    with pytest.raises(SealBroken):
        seal.unwrap(wrapped, CONTEXT, other)
    with pytest.raises(StartError, match="altered"):
        seal.unwrap(wrapped, CONTEXT, {"mechanism": "AES_ECB"})


def test_each_fault_is_a_sentence(hsm: SoftHsm, tmp_path: Path) -> None:
    data = tmp_path / "data"
    good = hsm.settings(data)
    open_vault(good).close()
    for given, said in {
        ("seal_pkcs11_module", None): "needs KMS_SEAL_PKCS11_MODULE",
        ("seal_pkcs11_module", Path("/nowhere/module.so")): "/nowhere/module.so is not there",
        ("seal_pkcs11_module", Path(__file__)): "does not load as PKCS #11",
        ("seal_pkcs11_token", None): "needs KMS_SEAL_PKCS11_TOKEN",
        ("seal_pkcs11_token", "other"): "The token `other` is not there",
        ("seal_pkcs11_slot", 12345): "is not there",
        ("seal_pkcs11_key", "other"): "has no secret key `other`",
        ("seal_pkcs11_pin", None): "needs KMS_SEAL_PKCS11_PIN_FILE",
    }.items():
        assert said in refusal(hsm.settings(data, **dict([given])))
    open_vault(good).close()


def test_a_wrong_pin_is_tried_once(hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_vault(hsm.settings(tmp_path / "data")).close()
    wrong = hsm.settings(tmp_path / "data", seal_pkcs11_pin="9731")
    with pytest.raises(StartAgainHarms) as refused:
        open_vault(wrong)
    said = str(refused.value)
    assert "tried once" in said
    assert "9731" not in said

    def is_not_to_be_called(*_: object) -> None:
        raise AssertionError("the token was asked to log in")

    monkeypatch.setattr(pkcs11_token, "_require_tries_left", is_not_to_be_called)
    assert "not tried again" in refusal(wrong)
    monkeypatch.undo()
    for name, value in hsm.environ.items():
        monkeypatch.setenv(name, value)
    open_vault(hsm.settings(tmp_path / "data")).close()


def test_the_pin_is_asked_for_once(hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or PIN)
    settings = hsm.settings(tmp_path / "data", seal_pkcs11_pin=None)
    open_vault(settings).close()
    assert asked == ["PIN of the token: "]
    open_vault(settings).close()
    assert len(asked) == 2


def test_another_key_of_the_same_label_opens_nothing(hsm: SoftHsm, tmp_path: Path) -> None:
    settings = hsm.settings(tmp_path / "data")
    open_vault(settings).close()
    with session_of(hsm) as session:
        session.get_key(label="kms").destroy()
        key_with(session, SENSITIVE=True, EXTRACTABLE=False)
    assert "gives another root key" in refusal(settings)
    with session_of(hsm) as session:
        key_with(session, SENSITIVE=True, EXTRACTABLE=False)
    assert "several secret keys" in refusal(settings)


def test_the_operator_s_own_key(hsm: SoftHsm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = hsm.settings(tmp_path / "data", seal_pkcs11_make_key="off")
    assert "KMS_SEAL_PKCS11_MAKE_KEY is off" in refusal(settings)
    with session_of(hsm) as session:
        key_with(session, SENSITIVE=False, EXTRACTABLE=True)
    assert "can be read out" in refusal(settings)
    with session_of(hsm) as session:
        session.get_key(label="kms").destroy()
        key_with(session, SENSITIVE=True, EXTRACTABLE=True)
    open_vault(settings).close()
    assert "is extractable" in "".join(capsys.readouterr())


def test_two_tokens_of_one_label_are_told_apart_by_their_slots(hsm: SoftHsm, tmp_path: Path) -> None:
    hsm.make_token()
    assert "KMS_SEAL_PKCS11_SLOT" in refusal(hsm.settings(tmp_path / "data"))
    module = pkcs11.lib(str(hsm.module))
    slots = [each.slot.slot_id for each in module.get_tokens(token_label="kms")]
    module.finalize()
    open_vault(hsm.settings(tmp_path / "data", seal_pkcs11_slot=slots[0])).close()
    assert "no secret key" in refusal(hsm.settings(tmp_path / "data", seal_pkcs11_slot=slots[1]))
    open_vault(hsm.settings(tmp_path / "data", seal_pkcs11_token=None, seal_pkcs11_slot=slots[0])).close()


def test_a_last_try_is_not_taken(hsm: SoftHsm, tmp_path: Path) -> None:
    """SoftHSM has no such limit, so a token that says so is stood for by its flags."""

    class Token:
        flags = pkcs11.TokenFlag.USER_PIN_FINAL_TRY | pkcs11.TokenFlag.LOGIN_REQUIRED

    where = pkcs11_token.Where(str(hsm.module), "kms", None, "kms")
    with pytest.raises(StartError, match="next wrong PIN locks it"):
        pkcs11_token._require_tries_left(Token(), where)  # type: ignore[arg-type]
    Token.flags = pkcs11.TokenFlag.LOGIN_REQUIRED
    pkcs11_token._require_tries_left(Token(), where)  # type: ignore[arg-type]


def test_without_the_library(hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs11_token, "find_spec", lambda _: None)
    assert "requirements-pkcs11.txt" in refusal(hsm.settings(tmp_path / "data"))
