"""The rings: exact counts, the right records in the right order, and a hash that only the records decide."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from engine.trace.record import PATHS, RECORD
from engine.trace.rings import BLOCK_RECORDS, LAYOUT, Trace

COLUMNS = {"guest": "<u2", "kind": "u1", "cause": "u1", "path": "u1", "disposition": "u1", "count": "<u4"}


def _write(trace: Trace, guest: int, position: int, chance: random.Random) -> tuple[int, int, int, int]:
    """Write a random record; returns its (kind, cause, path, disposition)."""
    key = (chance.randrange(8), chance.randrange(256), chance.randrange(len(PATHS)), chance.randrange(5))
    words = [chance.getrandbits(64) for _ in range(4)]
    trace.record(
        1, guest, 0, *key, chance.randrange(20), 2, 3, position * 10, position, words[0], words[1],
        chance.getrandbits(32), chance.getrandbits(10), 300, words[2], words[3],
    )  # fmt: skip
    return key


def _filled(counts: Iterable[tuple[int, int]], seed: int = 1, **options: Any) -> Trace:
    """A trace with so many records for each (guest, how many), interleaved."""
    chance = random.Random(seed)
    trace = Trace(**options)
    order = [guest for guest, count in counts for _ in range(count)]
    chance.shuffle(order)
    for position, guest in enumerate(order):
        _write(trace, guest, position, chance)
    return trace


def _read(columns: dict[str, bytes]) -> Counter[tuple[int, ...]]:
    """Columns as a Counter of (guest, kind, cause, path, disposition)."""
    arrays = {name: np.frombuffer(columns[name], dtype) for name, dtype in COLUMNS.items()}
    rows = zip(*(array.tolist() for array in arrays.values()), strict=True)
    return Counter({row[:5]: row[5] for row in rows})


def test_a_record_has_every_field_in_its_place() -> None:
    trace = Trace()
    sequence = trace.record(
        2, 3, 1, 4, 0x85, 9, 1, 11, 2, 0, 1000, 77, 0x80200004, 0xBAD, 0x73, 55, 300, 0x10, 0x20
    )
    (record,) = trace.records(3)
    assert sequence == 1
    assert {name: int(record[name]) for name in RECORD.names or ()} == {
        "sequence": 1, "time": 1000, "position": 77, "pc": 0x80200004, "value": 0xBAD, "a": 0x10, "b": 0x20,
        "executed": 55, "cost": 300, "instruction": 0x73, "host": 2, "guest": 3, "vcpu": 1, "kind": 4,
        "cause": 0x85, "path": 9, "disposition": 1, "action": 11, "from_level": 2, "to_level": 0,
    }  # fmt: skip


def test_long_silence_saturates() -> None:
    trace = Trace()
    trace.record(1, 1, 0, 0, 2, 8, 1, 2, 2, 2, 0, 0, 0, 0, 0, 1 << 40, 1 << 33, 0, 0)
    (record,) = trace.records(1)
    assert (record["executed"], record["cost"]) == (0xFFFFFFFF, 0xFFFFFFFF)


def test_the_ring_keeps_the_latest_and_says_what_is_gone() -> None:
    trace = _filled([(1, 5000)], capacity=1024)
    assert trace.total(1) == trace.written == 5000
    held = trace.records(1, limit=10**6)
    assert held["sequence"].tolist() == list(range(trace.first(1), 5001))
    assert 1024 <= len(held) <= 1024 + BLOCK_RECORDS


@settings(deadline=None)
@given(st.integers(0, 1500), st.integers(0, 1600), st.integers(1, 700))
def test_records_before_a_sequence(count: int, before: int, limit: int) -> None:
    trace = _filled([(1, count)], capacity=512)
    found = trace.records(1, before, limit)["sequence"].tolist()
    last = min(before - 1, count)
    assert found == list(range(max(last - limit + 1, trace.first(1)), last + 1))


def test_a_guest_without_records() -> None:
    trace = Trace()
    assert len(trace.records(9)) == len(trace.latest(10)) == len(trace.drain_sample(10)) == 0
    assert (trace.total(9), trace.first(9), trace.counters(9), trace.last_position()) == (0, 1, {}, None)
    assert _read(trace.drain_counts()) == Counter()


def test_latest_is_in_the_order_of_writing() -> None:
    trace = _filled([(1, 300), (2, 900), (3, 10)])
    positions = trace.latest(200)["position"].tolist()
    assert positions == list(range(1010, 1210))


def test_counts_are_exact_and_drained_once() -> None:
    chance = random.Random(5)
    trace = Trace(capacity=256)
    everything: Counter[tuple[int, ...]] = Counter()
    for tick in range(5):
        expected: Counter[tuple[int, ...]] = Counter()
        for position in range(2000):
            guest = chance.randint(1, 3)
            expected[guest, *_write(trace, guest, tick * 2000 + position, chance)] += 1
        everything += expected
        assert _read(trace.totals()) == everything
        assert _read(trace.drain_counts()) == expected
        assert _read(trace.drain_counts()) == Counter()
    assert _read(trace.totals()) == everything
    assert sum(trace.counters(2).values()) == trace.total(2)


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=8), st.integers(1, 100))
def test_sample_is_spread_over_the_guests(counts: list[int], limit: int) -> None:
    trace = _filled(enumerate(counts, 1))
    sample = trace.drain_sample(limit)
    assert len(sample) == min(limit, sum(counts))
    assert sorted(sample["position"].tolist()) == sample["position"].tolist()
    share = Counter(sample["guest"].tolist())
    for guest, count in enumerate(counts, 1):
        assert share[guest] >= min(count, limit // len(counts))
        mine = sample[sample["guest"] == guest]["sequence"].tolist()
        assert mine == list(range(count - len(mine) + 1, count + 1)), "the latest of each guest"
    assert len(trace.drain_sample(limit)) == 0


def test_last_position() -> None:
    chance = random.Random(3)
    trace = Trace(capacity=512)
    positions: dict[int, list[int]] = {1: [], 2: []}
    for position in range(0, 6000, 3):
        guest = chance.choice((1, 2))
        _write(trace, guest, position, chance)
        positions[guest].append(position)
    oldest = max(int(trace.records(guest, limit=10**6)["position"][0]) for guest in (1, 2))
    for before in range(oldest + 1, 6010, 7):
        for guest in (1, 2):
            expected = max(position for position in positions[guest] if position < before)
            assert trace.last_position(guest, before) == expected
        assert trace.last_position(None, before) == min((before - 1) // 3 * 3, 5997)
    assert trace.last_position() == 5997
    assert trace.last_position(1, 0) is None


def test_hash_is_the_chain_of_blocks() -> None:
    trace = _filled([(1, 700)])
    data = trace.records(1, limit=10**6).tobytes()
    size = BLOCK_RECORDS * LAYOUT.size
    chain = bytes(16)
    for at in range(0, len(data) - size + 1, size):
        chain = xxh3_128_digest(chain + xxh3_128_digest(data[at : at + size]))
    last = xxh3_128_digest(chain + xxh3_128_digest(data[len(data) // size * size :]))
    assert trace.hash() == xxh3_128_digest(b"\1\0" + last).hex()


def test_hash_sees_every_record_and_only_records() -> None:
    trace = _filled([(1, 3000), (2, 100)], capacity=256)
    same = _filled([(1, 3000), (2, 100)], capacity=1024)
    same.drain_counts()
    same.drain_sample(3)
    assert same.hash() == trace.hash()
    assert same.hash() == same.hash()
    seen = {trace.hash()}
    for seed in (2, 3):
        seen.add(_filled([(1, 3000), (2, 100)], seed=seed).hash())
    _write(trace, 2, 9999, random.Random(0))
    seen.add(trace.hash())
    assert len(seen) == 4


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000])
def test_a_snapshot_goes_on_with_the_same_trace(count: int) -> None:
    one = _filled([(1, count), (2, 7)], capacity=512)
    one.drain_counts()
    other = Trace(capacity=512)
    _write(other, 5, 0, random.Random(0))
    other.load(msgpack.unpackb(msgpack.packb(one.save())))
    assert other.save() == one.save()
    assert len(other.drain_sample(10)) == 0
    for trace in (one, other):
        chance = random.Random(9)
        for position in range(600):
            _write(trace, chance.choice((1, 2)), 10**6 + position, chance)
    assert other.hash() == one.hash()
    assert _read(other.totals()) == _read(one.totals())
    assert _read(other.drain_counts()) == _read(one.drain_counts())
    assert other.latest(400).tobytes() == one.latest(400).tobytes()


def test_loading_takes_later_records_back() -> None:
    trace = _filled([(1, 400)])
    saved, digest = trace.save(), trace.hash()
    for position in range(400, 1000):
        _write(trace, 1, position, random.Random(position))
    trace.load(saved)
    assert (trace.hash(), trace.total(1), trace.last_position()) == (digest, 400, 399)


def test_a_removed_guest_comes_back_with_its_trace() -> None:
    trace = _filled([(1, 300), (2, 300)])
    digest, saved = trace.hash(), trace.save_guest(2)
    trace.remove(2)
    assert trace.guests() == [1]
    assert trace.hash() != digest
    trace.load_guest(2, saved)
    assert trace.hash() == digest
    trace.remove(7)


def test_the_sink_gets_every_record() -> None:
    seen: list[bytes] = []
    trace = _filled([(1, 400), (2, 300)], sink=seen.append)
    assert b"".join(seen) == trace.latest(1000).tobytes()


def test_capacity_is_checked() -> None:
    for capacity in (0, 100, 300):
        with pytest.raises(ValueError, match=f"not {capacity}"):
            Trace(capacity)
