"""Keeping the trace: a ring of the latest records for each guest, exact counters, and a running hash.

`record` is called once for every trap of every guest, so it only packs and counts; everything else is done in
blocks of BLOCK_RECORDS. A full block is sealed: it becomes immutable bytes (checkpoints share them instead of
copying) and joins the guest's hash, a chain in which each link is the digest (XXH3, 128 bits: it names a run, it
guards nothing) of the link before it and the block's own digest. The hash covers every record since the guest began,
however few the ring still holds, and does not depend on when anybody looked, saved or drained.

Counters are exact since boot. What `drain_counts` and `drain_sample` have not yet reported belongs to the
next tick; it is not part of a snapshot, because after a load every client starts from totals again.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128, xxh3_128_digest

from engine.trace.record import RECORD

BLOCK_RECORDS = 256
DIGEST_BYTES = xxh3_128().digest_size
MAX_U4 = 0xFFFFFFFF
NO_POSITION = (1 << 64) - 1

_CODES = {"<u8": "Q", "<u4": "I", "<u2": "H", "|u1": "B"}


def _fields() -> Mapping[str, Any]:
    assert RECORD.fields is not None
    return RECORD.fields


def _layout() -> struct.Struct:
    fields = _fields()
    layout = struct.Struct("<" + "".join(_CODES[fields[name][0].str] for name in RECORD.names or ()))
    if layout.size != RECORD.itemsize:
        raise ValueError("RECORD has padding between its fields")
    return layout


#: RECORD's fields, in its order, as a `struct` layout.
LAYOUT = _layout()
BLOCK_BYTES = BLOCK_RECORDS * LAYOUT.size

Records = npt.NDArray[np.void]
#: (kind, cause, path, disposition)
CounterKey = tuple[int, int, int, int]
#: Parallel columns "guest" (<u2), "kind", "cause", "path", "disposition" (u1), "count" (<u4), as bytes.
Columns = dict[str, bytes]

_COUNTS = np.dtype(
    [
        ("guest", "<u2"),
        ("kind", "u1"),
        ("cause", "u1"),
        ("path", "u1"),
        ("disposition", "u1"),
        ("count", "<u4"),
    ]
)


def _linked(chain: bytes, data: bytes | memoryview) -> bytes:
    """The next link of a chain."""
    return xxh3_128_digest(chain + xxh3_128_digest(data))


class _Ring:
    """One guest's records. `tick` has the counts since the last drain, `totals` those before."""

    __slots__ = ("block", "chain", "drained", "filled", "sealed", "sequence", "tick", "totals")

    def __init__(self, blocks: int) -> None:
        self.sequence = 0
        self.block = bytearray(BLOCK_BYTES)
        self.filled = 0
        self.sealed: deque[bytes] = deque(maxlen=blocks)
        self.chain = bytes(DIGEST_BYTES)
        self.totals: dict[int, int] = {}
        self.tick: dict[int, int] = {}
        self.drained = 0

    def seal(self, block: bytes) -> None:
        self.sealed.append(block)
        self.chain = _linked(self.chain, block)
        self.filled = 0

    def append(self, data: memoryview) -> None:
        """Put whole records behind those that are there."""
        begin = min(len(data), -self.filled % BLOCK_BYTES)  # what completes the open block
        self._fill(data[:begin])
        end = begin + (len(data) - begin) // BLOCK_BYTES * BLOCK_BYTES
        kept = end - (self.sealed.maxlen or 0) * BLOCK_BYTES
        for at in range(begin, end, BLOCK_BYTES):
            block = data[at : at + BLOCK_BYTES]
            if at < kept:  # it would leave the ring at once
                self.chain = _linked(self.chain, block)
            else:
                self.seal(bytes(block))
        self._fill(data[end:])

    def _fill(self, data: memoryview) -> None:
        self.block[self.filled : self.filled + len(data)] = data
        self.filled += len(data)
        if self.filled == BLOCK_BYTES:
            self.seal(bytes(self.block))

    def digest(self) -> bytes:
        return _linked(self.chain, memoryview(self.block)[: self.filled])

    def held(self) -> int:
        return len(self.sealed) * BLOCK_RECORDS + self.filled // LAYOUT.size

    def last(self, limit: int, before: int) -> Records:
        """Up to `limit` records with a sequence below `before`, newest last."""
        stop = min(before, self.sequence + 1)
        start = max(stop - limit, self.sequence - self.held() + 1)
        if start >= stop:
            return np.empty(0, RECORD)
        # Blocks begin at sequences 1, 257, 513 ...: only those that hold the range are read.
        first_held = self.sequence - self.held() + 1
        low, high = (start - first_held) // BLOCK_RECORDS, (stop - 1 - first_held) // BLOCK_RECORDS
        data = b"".join(self._block(index) for index in range(low, high + 1))
        begin = first_held + low * BLOCK_RECORDS
        return np.frombuffer(data, RECORD)[start - begin : stop - begin]

    def _block(self, index: int) -> bytes:
        return self.sealed[index] if index < len(self.sealed) else bytes(self.block[: self.filled])

    def last_position_before(self, position: int) -> int | None:
        for index in range(len(self.sealed), -1, -1):
            positions = np.frombuffer(self._block(index), RECORD)["position"]
            found = int(np.searchsorted(positions, np.uint64(position)))
            if found:
                return int(positions[found - 1])
        return None

    def fold(self) -> dict[int, int]:
        """Move the tick's counts into the totals; returns them."""
        tick = self.tick
        for key, count in tick.items():
            self.totals[key] = self.totals.get(key, 0) + count
        self.tick = {}
        return tick


class Trace:
    """The records of all guests of one lab.

    `capacity`: records kept for each guest, a multiple of BLOCK_RECORDS (up to one block more are held).
    `sink`, if set, gets each record's bytes as it is written.
    """

    def __init__(self, capacity: int = 4096, sink: Callable[[bytes], None] | None = None) -> None:
        if capacity < BLOCK_RECORDS or capacity % BLOCK_RECORDS:
            raise ValueError(f"the capacity is a multiple of {BLOCK_RECORDS} records, not {capacity}")
        self._blocks = capacity // BLOCK_RECORDS
        self._rings: dict[int, _Ring] = {}
        self.sink = sink

    def record(
        self,
        host: int,
        guest: int,
        vcpu: int,
        kind: int,
        cause: int,
        path: int,
        disposition: int,
        action: int,
        from_level: int,
        to_level: int,
        time: int,
        position: int,
        pc: int,
        value: int,
        instruction: int,
        executed: int,
        cost: int,
        a: int,
        b: int,
        _pack: Callable[..., None] = LAYOUT.pack_into,
    ) -> int:
        """Write one record (fields as in RECORD) and return its sequence.

        `executed` and `cost` stop at 2**32 - 1; the positions of a guest's records never decrease.
        """
        ring = self._rings.get(guest)
        if ring is None:
            ring = self._rings[guest] = _Ring(self._blocks)
        ring.sequence = sequence = ring.sequence + 1
        filled = ring.filled
        _pack(
            ring.block,
            filled,
            sequence,
            time,
            position,
            pc,
            value,
            a,
            b,
            executed if executed <= MAX_U4 else MAX_U4,
            cost if cost <= MAX_U4 else MAX_U4,
            instruction,
            host,
            guest,
            vcpu,
            kind,
            cause,
            path,
            disposition,
            action,
            from_level,
            to_level,
        )
        if self.sink is not None:
            self.sink(bytes(ring.block[filled : filled + LAYOUT.size]))
        key = kind << 24 | cause << 16 | path << 8 | disposition
        tick = ring.tick
        tick[key] = tick.get(key, 0) + 1
        ring.filled = filled = filled + LAYOUT.size
        if filled == BLOCK_BYTES:
            ring.seal(bytes(ring.block))
        return sequence

    def extend(self, guest: int, data: memoryview, counts: Mapping[int, int]) -> None:
        """Write the records of one guest that `data` holds; their sequences follow `total`. counts: how many there are of
        each CounterKey, as a word with a byte for each part, the kind first."""
        ring = self._rings.get(guest)
        if ring is None:
            ring = self._rings[guest] = _Ring(self._blocks)
        ring.sequence += len(data) // LAYOUT.size
        ring.append(data)
        tick = ring.tick
        for key, number in counts.items():
            tick[key] = tick.get(key, 0) + number
        if self.sink is not None:
            for begin in range(0, len(data), LAYOUT.size):
                self.sink(bytes(data[begin : begin + LAYOUT.size]))

    def guests(self) -> list[int]:
        """The guests that have records, by id."""
        return sorted(self._rings)

    @property
    def written(self) -> int:
        """How many records all guests together have had."""
        return sum(ring.sequence for ring in self._rings.values())

    def total(self, guest: int) -> int:
        """The sequence of the guest's latest record, which is also how many there were."""
        ring = self._rings.get(guest)
        return ring.sequence if ring else 0

    def first(self, guest: int) -> int:
        """The sequence of the oldest record that is still held; total + 1 if none is."""
        ring = self._rings.get(guest)
        return ring.sequence - ring.held() + 1 if ring else 1

    def records(self, guest: int, before: int | None = None, limit: int = 200) -> Records:
        """Up to `limit` held records of a guest with a sequence below `before` (None: the latest), newest
        last.
        """
        ring = self._rings.get(guest)
        if ring is None:
            return np.empty(0, RECORD)
        return ring.last(limit, ring.sequence + 1 if before is None else before)

    def latest(self, limit: int) -> Records:
        """The latest `limit` records over all guests in the order in which they were written."""
        return _ordered([ring.last(limit, ring.sequence + 1) for ring in self._rings.values()])[-limit:]

    def last_position(self, guest: int | None = None, before_position: int = NO_POSITION) -> int | None:
        """The greatest position below `before_position` of a held record of `guest` (None: of any); None:
        none.
        """
        rings = self._rings.values() if guest is None else filter(None, [self._rings.get(guest)])
        found = [ring.last_position_before(before_position) for ring in rings]
        return max((position for position in found if position is not None), default=None)

    def counters(self, guest: int) -> dict[CounterKey, int]:
        """How often each (kind, cause, path, disposition) happened to the guest since it began."""
        ring = self._rings.get(guest)
        if ring is None:
            return {}
        keys = ring.totals.keys() | ring.tick.keys()
        return {
            (key >> 24, key >> 16 & 0xFF, key >> 8 & 0xFF, key & 0xFF): ring.totals.get(key, 0)
            + ring.tick.get(key, 0)
            for key in sorted(keys)
        }

    def totals(self) -> Columns:
        """The counters of all guests since they began, as columns."""
        return _columns(
            (guest, kind << 24 | cause << 16 | path << 8 | disposition, count)
            for guest in self.guests()
            for (kind, cause, path, disposition), count in self.counters(guest).items()
        )

    def drain_counts(self) -> Columns:
        """What was counted since the last call, as columns."""
        return _columns(
            (guest, key, count)
            for guest in self.guests()
            for key, count in sorted(self._rings[guest].fold().items())
        )

    def drain_sample(self, limit: int) -> Records:
        """At most `limit` of the records written since the last call, spread evenly over the guests.

        From each guest its latest; in the order in which they were written.
        """
        fresh = {
            guest: ring.sequence - ring.drained
            for guest, ring in sorted(self._rings.items())
            if ring.sequence > ring.drained
        }
        shares = _shares(fresh, limit)
        sample = [self._rings[guest].last(share, NO_POSITION) for guest, share in shares.items()]
        for ring in self._rings.values():
            ring.drained = ring.sequence
        return _ordered(sample)

    def hash(self) -> str:
        """A digest over every record ever written, in hexadecimal."""
        whole = xxh3_128()
        for guest in self.guests():
            whole.update(guest.to_bytes(2, "little") + self._rings[guest].digest())
        return whole.hexdigest()

    def save(self) -> dict[str, Any]:
        """A snapshot that msgpack can carry. Sealed blocks are shared with it, not copied."""
        return {"guests": [[guest, self.save_guest(guest)] for guest in self.guests()]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to what `save` returned: later records are gone, and nothing waits to be drained."""
        self._rings.clear()
        for guest, ring in state["guests"]:
            self.load_guest(guest, ring)

    def save_guest(self, guest: int) -> dict[str, Any]:
        """One guest's part of `save`, so that a removed guest can be brought back with its trace."""
        ring = self._rings.get(guest) or _Ring(self._blocks)
        return {
            "sequence": ring.sequence,
            "sealed": list(ring.sealed),
            "block": bytes(ring.block[: ring.filled]),
            "chain": ring.chain,
            "counts": [list(item) for item in sorted(self._merged(ring).items())],
        }

    @staticmethod
    def _merged(ring: _Ring) -> dict[int, int]:
        merged = dict(ring.totals)
        for key, count in ring.tick.items():
            merged[key] = merged.get(key, 0) + count
        return merged

    def load_guest(self, guest: int, state: Mapping[str, Any]) -> None:
        """Restore one guest from `save_guest`."""
        ring = _Ring(self._blocks)
        ring.sequence = ring.drained = state["sequence"]
        ring.sealed.extend(state["sealed"])
        ring.filled = len(state["block"])
        ring.block[: ring.filled] = state["block"]
        ring.chain = state["chain"]
        ring.totals = dict(state["counts"])
        self._rings[guest] = ring

    def remove(self, guest: int) -> None:
        """Forget a guest's records, counts and hash."""
        self._rings.pop(guest, None)


def _ordered(parts: list[Records]) -> Records:
    if not parts:
        return np.empty(0, RECORD)
    # Joining bytes: concatenating structured arrays promotes their types first, which takes 50 times as long.
    records = np.frombuffer(b"".join(part.tobytes() for part in parts), RECORD)
    return records[np.lexsort((records["sequence"], records["guest"], records["position"]))]


def _shares(fresh: Mapping[int, int], limit: int) -> dict[int, int]:
    """Divide `limit` so that no guest gets more than it has or, while another is short, more than that one.
    """
    shares: dict[int, int] = {}
    left = limit
    for index, guest in enumerate(sorted(fresh, key=lambda guest: fresh[guest])):
        # With less than one each, the guests with most traps are the ones shown.
        shares[guest] = min(fresh[guest], left // (len(fresh) - index))
        left -= shares[guest]
    return shares


def _columns(rows: Iterable[tuple[int, int, int]]) -> Columns:
    table = np.array(
        [
            (guest, key >> 24, key >> 16 & 0xFF, key >> 8 & 0xFF, key & 0xFF, min(count, MAX_U4))
            for guest, key, count in rows
        ],
        _COUNTS,
    )
    return {name: table[name].tobytes() for name in _COUNTS.names or ()}
