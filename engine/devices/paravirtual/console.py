"""The console's back end: one page with two rings of bytes (Xen's xencons_interface has the same form).

    0   out_produced   the guest's       32    what was typed, INPUT bytes
    8   out_consumed   ours              32 +  what it prints, OUTPUT bytes
    16  in_produced    ours
    24  in_consumed    the guest's

Indices only grow, modulo 2**64; a byte's place is its index's remainder. What was typed waits here while the ring is
full, at most WAITING of it, as in the UART's queue.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from engine.bits import MASK64
from engine.devices import GuestMemory, State

INPUT, OUTPUT = 1024, 2048
WAITING = 4096
_INDICES = struct.Struct("<4Q")
_WORD = struct.Struct("<Q")
_OUT_CONSUMED, _IN_PRODUCED = 8, 16
_INPUT_AT = _INDICES.size
_OUTPUT_AT = _INPUT_AT + INPUT


class ConsoleRing:
    """`output(data)` gets what the guest prints; `tell()` is called when it has something new to read."""

    def __init__(self, memory: GuestMemory, output: Callable[[bytes], None], tell: Callable[[], None]) -> None:
        self._memory = memory
        self._output = output
        self._tell = tell
        self._page: int | None = None  # its address
        self._waiting = b""

    def connect(self, address: int) -> None:
        self._page = address
        self._put()

    def receive(self, data: bytes) -> int:
        """Bytes typed; returns how many there was room for."""
        taken = data[: WAITING - len(self._waiting)]
        self._waiting += taken
        self._put()
        return len(taken)

    def service(self) -> bool:
        """Print what the guest has produced, and go on with what it made room for. False: there is no ring, or its
        indices are impossible."""
        if self._page is None:
            return False
        produced, consumed, _, _ = self._indices(self._page)
        count = produced - consumed & MASK64
        if count > OUTPUT:
            self._page = None
            return False
        if count:
            begin = consumed % OUTPUT
            ring = self._memory.read(self._page + _OUTPUT_AT, OUTPUT)
            self._memory.write(self._page + _OUT_CONSUMED, _WORD.pack(produced))
            self._output((ring + ring)[begin : begin + count])
        return self._put()

    def _put(self) -> bool:
        """Move what waits into the ring."""
        if self._page is None or not self._waiting:
            return True
        _, _, produced, consumed = self._indices(self._page)
        used = produced - consumed & MASK64
        if used > INPUT:
            self._page = None
            return False
        data, self._waiting = self._waiting[: INPUT - used], self._waiting[INPUT - used :]
        if data:
            begin = produced % INPUT
            first = data[: INPUT - begin]
            self._memory.write(self._page + _INPUT_AT + begin, first)
            if len(first) < len(data):
                self._memory.write(self._page + _INPUT_AT, data[len(first) :])
            self._memory.write(self._page + _IN_PRODUCED, _WORD.pack(produced + len(data) & MASK64))
            self._tell()
        return True

    def _indices(self, page: int) -> tuple[int, int, int, int]:
        out_produced, out_consumed, in_produced, in_consumed = _INDICES.unpack(
            self._memory.read(page, _INDICES.size)
        )
        return out_produced, out_consumed, in_produced, in_consumed

    def save(self) -> State:
        return {"page": self._page, "waiting": self._waiting}

    def load(self, state: State) -> None:
        self._page, self._waiting = state["page"], state["waiting"][:WAITING]
