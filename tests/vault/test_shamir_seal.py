"""The seal `shamir`: shares that people type, and a vault that enough of them open."""

from __future__ import annotations

import base64
import io
import logging
import stat
import sys
from hashlib import sha256
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kms.config import Settings
from kms.errors import StartError
from kms.secret import Secret
from kms.vault import shares as share_texts
from kms.vault.keyset import new_secret
from kms.vault.opening import open_vault, stored_vault
from kms.vault.shares import Gathered, Share, ShareRefused, ShareSet, split
from kms.vault.unsealing import Unsealing

SECRET = Secret(bytes(range(32)))


def shamir(path: Path, **more: object) -> Settings:
    """The settings of a vault with that seal, and its shares beside it."""
    return Settings(data_dir=path / "data", seal="shamir", seal_shares_dir=path / "shares", **more)  # type: ignore[arg-type]


def shares_in(path: Path) -> list[Path]:
    """The files of the shares, by their numbers."""
    return sorted((path / "shares").iterdir())


def by_files(settings: Settings, files: list[Path]) -> Settings:
    """As a command on the host is given shares."""
    return Settings(data_dir=settings.data_dir, seal="shamir", seal_share_files=",".join(map(str, files)))


def crockford(content: bytes) -> str:
    """Base 32 of the standard library, in the other alphabet, in groups of four."""
    rfc_4648 = base64.b32encode(content).decode().rstrip("=")
    text = rfc_4648.translate(str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def test_the_text_of_a_share() -> None:
    """As docs/reference/formats.md has it."""
    head, value = bytes.fromhex("0123456789") + b"\x03\x02", bytes(range(32))
    share = Share(head[:5], 3, 2, SECRET)
    checksum = sha256(b"kms-share-1\0" + head + value).digest()[:3]
    body = "000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFZ-QXFB"
    assert crockford(value + checksum) == body
    assert share.encoded() == f"kms-share-1-04HMASW9-3-2-{body}"
    assert Share.decoded(share.encoded()) == share
    checksum = sha256(b"kms-recovery-1\0" + value).digest()[:3]
    assert share_texts.recovery_text(SECRET) == f"kms-recovery-1-{crockford(value + checksum)}"


@given(st.integers(0, 400), st.sampled_from(share_texts._ALPHABET))
@settings(max_examples=200, deadline=None)
def test_a_typing_error_is_told_and_which_share_it_is_in(at: int, typed: str) -> None:
    text = Share(bytes(5), 3, 2, SECRET).encoded()
    begin = len("kms-share-1-00000000-3-2-")
    at = begin + at % (len(text) - begin)
    if text[at] in {"-", typed}:
        return
    with pytest.raises(ShareRefused, match="Share 2 has a typing error"):
        Share.decoded(text[:at] + typed + text[at + 1 :])
    with pytest.raises(ShareRefused, match="Share 2 has a typing error"):
        Share.decoded(text[:at] + text[at + 1 :])


def test_what_people_type_need_not_look_like_what_was_printed() -> None:
    share = Share(bytes(5), 3, 2, SECRET)
    text = share.encoded()
    for typed in (
        text.lower(),
        text.replace("-", " "),
        f"  {text}\n",
        text.replace("0", "o"),
        text[:25] + text[25:].replace("-", ""),
        text[:60] + "\n   " + text[60:],
    ):
        assert Share.decoded(typed) == share
    other_number = text.replace("-3-2-", "-3-4-")
    with pytest.raises(ShareRefused, match="Share 4 has a typing error"):
        Share.decoded(other_number)
    recovery_text = share_texts.recovery_text(SECRET)
    wrong_heads = [text.replace("-3-2-", head) for head in ("-3-300-", "-0-2-", "-3-x-")]
    for nonsense in ("", "kms", "kms-share-2" + text[11:], text + "Z", "é" * 100, recovery_text, *wrong_heads):
        with pytest.raises(ShareRefused):
            Share.decoded(nonsense)
    for nonsense in ("", text, share_texts.recovery_text(SECRET)[:-1], share_texts.recovery_text(SECRET)[:-1] + "2"):
        with pytest.raises(ShareRefused):
            share_texts.recovery_key_of(nonsense)
    assert share_texts.recovery_key_of(share_texts.recovery_text(SECRET).lower()) == SECRET


def test_gathering() -> None:
    share_set, made = split(SECRET, shares=5, threshold=3)
    again = ShareSet.of(share_set.parameters())
    assert again == share_set
    for chosen in permutations(made, 3):
        gathered = Gathered(again)
        for each in chosen:
            assert not gathered.is_enough
            gathered.add(each)
        assert gathered.is_enough
        assert gathered.secret() == SECRET
    gathered = Gathered(again)
    gathered.add(made[0])
    with pytest.raises(ShareRefused, match="Share 1 was given already"):
        gathered.add(made[0])
    with pytest.raises(ShareRefused, match="Share 2 is wrong"):
        gathered.add(Share(made[1].set_id, 3, 2, new_secret()))
    with pytest.raises(ShareRefused, match="Share 9 is wrong"):
        gathered.add(Share(made[1].set_id, 3, 9, new_secret()))
    with pytest.raises(ShareRefused, match="of the set"):
        gathered.add(split(SECRET, shares=5, threshold=3)[1][0])
    assert len(gathered) == 1
    values = gathered._values
    kept = values[1]
    gathered.forget()
    assert kept == bytes(32)
    assert not values


@pytest.mark.parametrize(("shares", "threshold"), [(5, 1), (3, 4), (1, 0), (256, 3)])
def test_numbers_that_make_no_sense(tmp_path: Path, shares: int, threshold: int) -> None:
    with pytest.raises(StartError, match="shares cannot be"):
        open_vault(shamir(tmp_path, seal_shamir_shares=shares, seal_shamir_threshold=threshold))
    assert not (tmp_path / "shares").exists()


def test_without_a_terminal_and_a_directory_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", seal="shamir")
    with pytest.raises(StartError, match="KMS_SEAL_SHARES_DIR"):
        open_vault(settings)
    with pytest.raises(StartError, match="no vault"):
        open_vault(settings, create=False)


def test_a_vault_that_shares_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = shamir(tmp_path)
    open_vault(settings).engine.dispose()
    files = shares_in(tmp_path)
    assert len(files) == 5
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    said = caplog.text + "".join(capfd.readouterr())
    assert not any(each.read_text().strip() in said for each in files)
    with pytest.raises(StartError, match="3 shares of the set"):
        open_vault(settings)
    for chosen in (files[:3], files[2:], files[::2], files):
        open_vault(by_files(settings, chosen)).engine.dispose()
    with pytest.raises(StartError, match="the files hold 2"):
        open_vault(by_files(settings, files[:2]))
    with pytest.raises(StartError, match="given already"):
        open_vault(by_files(settings, [files[0], files[0], files[1]]))
    files[1].write_text(files[1].read_text().replace("-3-2-", "-3-1-"))
    with pytest.raises(StartError, match=f"{files[1]}: Share 1 has a typing error"):
        open_vault(by_files(settings, files[:3]))
    files[0].chmod(0o644)
    with pytest.raises(StartError, match="0600"):
        open_vault(by_files(settings, files[:3]))


def test_people_give_shares_one_at_a_time(tmp_path: Path) -> None:
    settings = shamir(tmp_path, seal_shamir_shares=3, seal_shamir_threshold=2)
    assert stored_vault(settings) is None
    open_vault(settings).engine.dispose()
    texts = [each.read_text() for each in shares_in(tmp_path)]
    found = stored_vault(settings)
    assert found is not None
    unsealing = Unsealing(found.slots, found.vault_id)
    assert unsealing.progress == "sealed: 0 of 2 shares given"
    assert unsealing.give(texts[2]) == "sealed: 1 of 2 shares given"
    for wrong, says in ((texts[2], "given already"), ("kms-share-1-", "no share"), (texts[1][:-3] + "\n", "typing")):
        with pytest.raises(ShareRefused, match=says):
            unsealing.give(wrong)
        assert unsealing.progress == "sealed: 1 of 2 shares given"
    assert unsealing.reset() == "sealed: 0 of 2 shares given"
    unsealing.give(texts[2])
    assert not unsealing.is_done
    assert unsealing.give(texts[0]) == "unsealed"
    assert unsealing.is_done
    with pytest.raises(ShareRefused, match="already"):
        unsealing.give(texts[1])
    vault = open_vault(settings, create=False, unseal=unsealing)
    assert unsealing.opened is not None
    assert unsealing.opened.slot == "seal"
    vault.engine.dispose()


def test_shares_of_a_vault_whose_row_was_altered_open_nothing(tmp_path: Path) -> None:
    settings = shamir(tmp_path, seal_shamir_shares=2, seal_shamir_threshold=2)
    vault = open_vault(settings)
    with vault.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE keyslots SET wrapped = substr(wrapped, 1, 60)")
    vault.engine.dispose()
    found = stored_vault(settings)
    assert found is not None
    unsealing = Unsealing(found.slots, found.vault_id)
    first, second = (each.read_text() for each in shares_in(tmp_path))
    unsealing.give(first)
    with pytest.raises(ShareRefused, match="altered"):
        unsealing.give(second)
    assert unsealing.progress == "sealed: 0 of 2 shares given"


class Terminal(io.StringIO):
    """What a person sees."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_shares_are_shown_once_and_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    settings = Settings(data_dir=tmp_path / "data", seal="shamir")
    open_vault(settings).engine.dispose()
    blocks = [block.split("\n", 1) for block in seen.getvalue().split("\n\n") if "kms-share-1-" in block]
    assert len(blocks) == 5
    texts = [text for _, text in blocks]  # over several lines, as a person copies them
    assert [Share.decoded(text).number for text in texts] == [1, 2, 3, 4, 5]
    typed = iter(["nonsense", texts[4], texts[4], texts[0], texts[2]])
    monkeypatch.setattr(sys, "stdin", Terminal())
    asked: list[str] = []

    def getpass(prompt: str) -> str:
        asked.append(prompt)
        return next(typed)

    monkeypatch.setattr("getpass.getpass", getpass)
    open_vault(settings).engine.dispose()
    assert "(1 of 3)" in asked[0]
    assert "(3 of 3)" in asked[-1]
    assert "Share 5 was given already" in seen.getvalue()
    typed = iter([""])
    with pytest.raises(StartError, match="No share was given"):
        open_vault(settings)
