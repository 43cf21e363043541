"""A bounded run of the gdb client's fuzzer; `python -m tests.fuzz.gdb` runs longer ones."""

from __future__ import annotations

from tests.fuzz import gdb


def test_a_hostile_client_is_answered_and_raises_nothing() -> None:
    replies = gdb.fuzz(300, 3)
    assert sum(replies.values()) > 150
    assert {"E", "O", "T"} <= set(replies)
