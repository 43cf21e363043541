"""Where things are for native code: the fields of a hart's state, the TLBs, and a page of decoded operations.

An *operation* is 16 bytes: the address of its handler, then its operands as far as the row has them.

    0 handler   8 imm (32 bits: imm, shamt, csr or rm)   12 rd   13 rs1 or uimm   14 rs2   15 rs3

rd of a row that writes an integer register is SINK instead of 0, so that no handler asks about x0.

A *code page* holds an operation for each halfword of a page's content, one more that goes on to the next
page, the content itself, for each halfword its handler while a compiled region stands in its place, and how
often it was reached by a jump backwards. An instruction that ends in the next page has `straddle` as its handler;
for what followed it last there are the halfword there (plus 1 << 16, so that 0 is none) and the handler.

A *context* is what a hart may use without walking tables while privilege, satp and their like stay as they
are: a TLB for loads and one for stores (tag, what to add for a host address), so that a copy does not displace what it
reads by what it writes; a fetch TLB (tag, code page); the six words that name the situation; and for each mode (V and
privilege) which context was next when it became that mode, with the hart's `choices` at that time. A tag is the page's
virtual address; no address matches EMPTY. All are direct-mapped. A context whose bit in the hart's `stale` is set has
to be emptied before it is used.
"""

from __future__ import annotations

import ctypes
from typing import Any

from engine.isa.formats import Row
from engine.machine.state import HartState, MemoryState

OPERATION_BYTES = 16
IMM, RD, RS1, RS2, RS3 = 8, 12, 13, 14, 15
SINK = 32
PLACES = {
    "imm": IMM, "shamt": IMM, "csr": IMM, "rm": IMM, "rd": RD, "rs1": RS1, "uimm": RS1, "rs2": RS2,
    "rs3": RS3,
}  # fmt: skip

SLOTS = 2048
OPS_BYTES = SLOTS * OPERATION_BYTES
CONTENT_AT = OPS_BYTES + 64
PLAIN_AT = CONTENT_AT + 4096
HEAT_AT = PLAIN_AT + SLOTS * 8
STRADDLE_AT = HEAT_AT + SLOTS * 2
CODE_PAGE_BYTES = STRADDLE_AT + 960

EMPTY = (1 << 64) - 1
DATA_ENTRIES, ENTRY_SHIFT = 256, 4
READS, WRITES, ADDEND = 0, DATA_ENTRIES << ENTRY_SHIFT, 8
FETCH_ENTRIES, FETCH_ENTRY_BYTES = 128, 16
DATA_BYTES = 2 * WRITES
KEY_AT = DATA_BYTES + FETCH_ENTRIES * FETCH_ENTRY_BYTES
KEY_WORDS = 6
NEXT_AT = KEY_AT + 8 * KEY_WORDS
CONTEXT_BYTES = NEXT_AT + 80
CONTEXTS = 16

#: Of a row of `HartState.stops_at`: a virtual page's address, the decoded page of its content, and what to execute instead.
STOP_BYTES = 24

#: Why native code came back. LIMIT: `limit` is reached, or somebody has to look at interrupts. SLOW: the
#: instruction at pc is for the reference tier. FETCH: pc's page cannot be executed yet. TRAP: the instruction at pc
#: raised the trap in `trap_cause` and `trap_value`, which is somebody else's to take; EXIT: its monitor's.
LIMIT, SLOW, FETCH, TRAP, EXIT = range(5)


def offset_of(structure: type[ctypes.Structure], name: str) -> int:
    """Byte offset of a field."""
    descriptor: Any = getattr(structure, name)
    offset: int = descriptor.offset
    return offset


def field(name: str) -> int:
    """Byte offset of a field of HartState."""
    return offset_of(HartState, name)


def memory_field(name: str) -> int:
    """Byte offset of a field of MemoryState."""
    return offset_of(MemoryState, name)


def places(row: Row) -> dict[str, int]:
    """Byte offset in an operation of each operand that the row's semantics can use."""
    names = dict.fromkeys([*(piece.field for piece in row.pieces), *row.implied])
    found = {name: PLACES[name] for name in names if name in PLACES}
    if len(set(found.values())) != len(found):
        raise ValueError(f"{row.mnemonic}: two operands have one place")
    return found
