"""Keys made ahead are given once, and only of types that are slow and were asked for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from kms.crypto.registry import key_type
from kms.operations.core.key_pool import KeyPool


def test_nobody_gets_the_same_key() -> None:
    reserve, kind = KeyPool(), key_type("rsa-2048")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: reserve.generate(kind), range(24)))
    assert len(set(made)) == len(made)


def test_what_was_asked_for_is_made_ahead() -> None:
    reserve, kind = KeyPool(), key_type("rsa-2048")
    reserve.generate(kind)
    deadline = time.monotonic() + 60
    while len(reserve._ready[kind.name]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    ready = list(reserve._ready[kind.name])
    assert [reserve.generate(kind), reserve.generate(kind)] == ready
    assert list(reserve._ready) == [kind.name]


def test_fast_types_are_not_kept() -> None:
    reserve = KeyPool()
    before = threading.active_count()
    assert reserve.generate(key_type("ed25519")) != reserve.generate(key_type("ed25519"))
    assert not reserve._ready
    assert threading.active_count() == before
