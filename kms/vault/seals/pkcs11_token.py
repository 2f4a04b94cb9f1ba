"""A token of PKCS #11, opened for as long as it is needed; what it refuses becomes a sentence.

The library python-pkcs11 is loaded when a token is used, because only this seal needs it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from kms.errors import StartAgainHarms, StartError
from kms.secret import Secret
from kms.vault.sealing import SealBroken

if TYPE_CHECKING:
    import pkcs11

GCM, CBC = "AES_GCM", "AES_CBC"
"""The mechanisms, the better one first. By AES_GCM the token itself binds a key to its context. AES_CBC is for tokens
without: 32 random bytes are two whole blocks, and the envelope around them tells an altered key, and binds the
context."""

_NONCE_BYTES = {GCM: 12, CBC: 16}
_TAG_BITS = 128
_KEY_BITS = 256
_one_at_a_time = threading.Lock()  # a module is initialized for the whole process, and said to be used by one thread
_refused: dict[str, Secret] = {}  # by token: every wrong try may be one of the few that it allows


@dataclass(frozen=True)
class Where:
    """Which key: the path of the module, the label of the token or its slot, and the label of the key."""

    module: str
    label: str | None
    slot: int | None
    key: str

    @property
    def token(self) -> str:
        """The token in words."""
        return f"token `{self.label}`" if self.label is not None else f"token in slot {self.slot}"


def require_library() -> None:
    """Raise StartError unless python-pkcs11 is installed, which is no dependency of the service."""
    if find_spec("pkcs11") is None:
        raise StartError(
            "The seal `pkcs11` needs the library python-pkcs11: pip install -r requirements-pkcs11.txt, or "
            "pip install 'kms[pkcs11]'."
        )


def mechanism_of(where: Where, wanted: str | None) -> str:
    """The mechanism to wrap with: the one that is `wanted`, or the better one that it has. Raises StartError."""
    with _token(where) as found:
        return _mechanism(found, where, (wanted,) if wanted else (GCM, CBC))


def ensure_key(where: Where, pin: Secret, *, may_make: bool) -> None:
    """Make the AES key of that label in the token, if there is none and `may_make` allows it. Raises StartError."""
    import pkcs11

    with _session(where, pin, writes=True) as session:
        try:
            key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=where.key)
        except pkcs11.NoSuchKey:
            if not may_make:
                raise StartError(
                    f"The {where.token} has no secret key `{where.key}`, and KMS_SEAL_PKCS11_MAKE_KEY is off."
                ) from None
            _make_key(session, where)
        else:
            _require_good(key, where)


@contextmanager
def wrapping_key(where: Where, pin: Secret, mechanism: str) -> Iterator[WrappingKey]:
    """The key in its token, which is logged in to as long as this lasts. Raises StartError."""
    import pkcs11

    if mechanism not in _NONCE_BYTES:
        raise StartError(f"The keyslot of the vault was altered: `{mechanism}` is no mechanism of the seal `pkcs11`.")
    with _session(where, pin) as session:
        _mechanism(session.token, where, (mechanism,))
        try:
            key = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=where.key)
        except pkcs11.NoSuchKey:
            raise StartError(
                f"The {where.token} has no secret key `{where.key}`. Is it the right token, and is that the label in "
                "KMS_SEAL_PKCS11_KEY? If the key is lost, the vault opens with the recovery key only."
            ) from None
        yield WrappingKey(key, mechanism)


class WrappingKey:
    """An AES key in an open token."""

    def __init__(self, key: pkcs11.Key, mechanism: str) -> None:
        self._key, self._mechanism = key, mechanism

    def wrap_key(self, key: bytes, context: bytes) -> bytes:
        """Nonce (AES_GCM: 12 bytes; AES_CBC: an initialization vector of 16) ‖ ciphertext, with its tag (16)."""
        nonce = os.urandom(_NONCE_BYTES[self._mechanism])
        return nonce + self._encrypted(key, nonce, context)

    def unwrap_key(self, wrapped: bytes, context: bytes) -> bytes:
        """As `KeyWrapper.unwrap_key`."""
        import pkcs11

        length = _NONCE_BYTES[self._mechanism]
        nonce, ciphertext = wrapped[:length], wrapped[length:]
        try:
            opened: bytes = self._key.decrypt(ciphertext, **self._how(nonce, context))  # type: ignore[attr-defined]
        except pkcs11.PKCS11Error:
            # Tokens say this in many ways, GENERAL_ERROR among them. One that still encrypts is not at fault.
            self._encrypted(bytes(32), os.urandom(length), context)
            raise SealBroken("the token does not open the wrapped key") from None
        return opened

    def _encrypted(self, plaintext: bytes, nonce: bytes, context: bytes) -> bytes:
        encrypted: bytes = self._key.encrypt(plaintext, **self._how(nonce, context))  # type: ignore[attr-defined]
        return encrypted

    def _how(self, nonce: bytes, context: bytes) -> dict[str, object]:
        import pkcs11

        if self._mechanism == GCM:
            parameters: object = pkcs11.GCMParams(nonce, context, _TAG_BITS)
        else:
            parameters = nonce
        return {"mechanism": pkcs11.Mechanism[self._mechanism], "mechanism_param": parameters}


def _make_key(session: pkcs11.Session, where: Where) -> None:
    import pkcs11

    never_leaves = {
        pkcs11.Attribute.PRIVATE: True,
        pkcs11.Attribute.SENSITIVE: True,
        pkcs11.Attribute.EXTRACTABLE: False,
    }
    session.generate_key(
        pkcs11.KeyType.AES,
        _KEY_BITS,
        label=where.key,
        store=True,
        capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
        template=never_leaves,
    )
    structlog.get_logger().warning(
        f"made the key `{where.key}` in the {where.token}: it cannot leave the token, and who loses the token loses "
        "the vault, unless there is a backup of the token, or a recovery key"
    )


def _require_good(key: pkcs11.Key, where: Where) -> None:
    import pkcs11

    if key.key_type != pkcs11.KeyType.AES:
        raise StartError(f"The key `{where.key}` in the {where.token} is no AES key.")
    if not key[pkcs11.Attribute.SENSITIVE]:
        raise StartError(
            f"The key `{where.key}` in the {where.token} is not sensitive: it can be read out. Make another."
        )
    if key[pkcs11.Attribute.EXTRACTABLE]:
        structlog.get_logger().warning(
            f"the key `{where.key}` in the {where.token} is extractable: wrapped by another it can leave the token"
        )


def _mechanism(found: pkcs11.Token, where: Where, wanted: tuple[str, ...]) -> str:
    import pkcs11

    has = found.slot.get_mechanisms()
    for each in wanted:
        if each in _NONCE_BYTES and pkcs11.Mechanism[each] in has:
            return each
    raise StartError(f"The {where.token} cannot do {' or '.join(wanted)}; the seal `pkcs11` uses {GCM} or {CBC}.")


@contextmanager
def _session(where: Where, pin: Secret, *, writes: bool = False) -> Iterator[pkcs11.Session]:
    import pkcs11

    with _token(where) as found:
        name = f"{where.module} {found.serial.hex()}"
        if _refused.get(name) == pin:
            raise StartAgainHarms(f"The {where.token} has refused this PIN already; it is not tried again.")
        _require_tries_left(found, where)
        try:
            session = found.open(rw=writes, user_pin=pin.reveal().decode())
        except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
            _refused[name] = pin
            raise StartAgainHarms(_wrong_pin(where)) from None
        try:
            yield session
        finally:
            with suppress(pkcs11.PKCS11Error):  # a token that was pulled out cannot be logged out of
                session.close()


def _require_tries_left(found: pkcs11.Token, where: Where) -> None:
    import pkcs11

    if pkcs11.TokenFlag.USER_PIN_FINAL_TRY in found.flags:
        raise StartAgainHarms(
            f"The {where.token} says that the next wrong PIN locks it, so the PIN is not tried. Make sure that it is "
            "right, and log in once with the tools of the token: that gives it all its tries again."
        )


def _wrong_pin(where: Where) -> str:
    return (
        f"The {where.token} refuses the PIN. It was tried once and is not tried again by itself: a token allows a "
        "few wrong PINs and then locks itself, or destroys its keys. Find out the right one before the next start, "
        "and stop what starts the service again by itself."
    )


@contextmanager
def _token(where: Where) -> Iterator[pkcs11.Token]:
    """The token, while the module is loaded. Raises StartError for whatever goes wrong meanwhile."""
    import pkcs11

    if not Path(where.module).is_file():
        raise StartError(f"KMS_SEAL_PKCS11_MODULE: {where.module} is not there.")
    with _one_at_a_time:
        try:
            module = pkcs11.lib(where.module)
        except pkcs11.PKCS11Error as error:
            raise StartError(
                f"KMS_SEAL_PKCS11_MODULE: {where.module} does not load as PKCS #11: {_name(error)}."
            ) from None
        try:
            yield _found(module.get_slots(token_present=True), where)
        except pkcs11.PKCS11Error as error:
            raise StartError(_sentence(error, where)) from None
        finally:
            with suppress(pkcs11.PKCS11Error):
                module.finalize()  # closes what is open, and nothing of it is left to processes that are forked


def _found(slots: list[pkcs11.Slot], where: Where) -> pkcs11.Token:
    import pkcs11

    tokens = []
    for slot in slots:
        with suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
            found = slot.get_token()
            if (where.label in (None, found.label)) and where.slot in (None, slot.slot_id):
                tokens.append(found)
    if not tokens:
        raise StartError(
            f"The {where.token} is not there. Is it plugged in, and may this user reach it? The service's own user "
            "must be able to use the module."
        )
    if len(tokens) > 1:
        raise StartError(f"There are {len(tokens)} tokens of that label; say which one by KMS_SEAL_PKCS11_SLOT.")
    return tokens[0]


def _sentence(error: Exception, where: Where) -> str:
    """What a token's own error means. It holds names only, nothing that was sent there."""
    import pkcs11

    if isinstance(error, pkcs11.PinLocked):
        return f"The PIN of the {where.token} is locked after wrong tries. Its security officer can unlock it."
    if isinstance(error, (pkcs11.PinExpired, pkcs11.UserPinNotInitialized)):
        return f"The PIN of the {where.token} has expired or was never set. Set it with the tools of the token."
    if isinstance(error, pkcs11.MultipleObjectsReturned):
        return f"The {where.token} has several secret keys `{where.key}`; give the one to use a label of its own."
    if isinstance(error, (pkcs11.TokenNotPresent, pkcs11.DeviceRemoved)):
        return f"The {where.token} was removed."
    if isinstance(error, (pkcs11.TokenWriteProtected, pkcs11.SessionReadOnly)):
        return f"The {where.token} takes no new key: make an AES key `{where.key}` with its own tools."
    return (
        f"The {where.token} refuses what the seal asks for ({_name(error)}). May the key `{where.key}` encrypt and "
        "decrypt, and does the token take the mechanism with a nonce from outside? If not, set "
        f"KMS_SEAL_PKCS11_MECHANISM={CBC} for a new seal."
    )


def _name(error: Exception) -> str:
    return type(error).__name__ if not str(error) or len(str(error)) > 200 else str(error)
