"""The names a keyframe carries, against the specifications' own numbers."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from engine.trace import record
from engine.vocabulary import vocabulary


def test_numbers_are_those_of_the_specifications() -> None:
    words = vocabulary()
    assert words["registers"][2] == "sp"
    assert words["csrs"]["384"] == "satp"
    assert words["sbi"]["1414090053"] == {"name": "TIME", "functions": {"0": "set_timer"}}
    assert words["sbi"]["16"]["functions"]["3"] == "probe_extension"


def test_the_boards_devices_are_qemus_and_do_not_overlap() -> None:
    devices = {name: (base, size) for name, base, size in vocabulary()["devices"]}
    assert devices["uart"][0] == 0x10000000
    assert devices["plic"][0] == 0xC000000
    assert devices["finisher"][0] == 0x100000
    rows = sorted(devices.values())
    assert all(base + size <= following for (base, size), (following, _) in pairwise(rows))


def test_the_traces_own_schema_is_in_it_and_it_can_be_sent() -> None:
    words = vocabulary()
    assert {name: words[name] for name in record.schema()} == record.schema()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(words)) == words
