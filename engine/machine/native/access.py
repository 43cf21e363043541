"""What native code does on a TLB miss: translate by the machine's own page walk, then use and remember the page.

The procedures here exist only natively (see engine.machine.native.procedures for the language). They do what
Hart._access and Memory do in Python, and refuse what only those can do: devices, accesses over two pages,
stores to pages with code and to watched ones. Words of this process that are no field of the hart are reached by
`h.peek(address, bytes)` and `h.poke(address, bytes, value)`.
"""

from __future__ import annotations

from typing import Any

from engine.isa.csrs import EnvironmentBits, Status
from engine.machine import mmu, privileged
from engine.machine.memory import TABLE
from engine.machine.mmu import Access
from engine.machine.native import layout
from engine.machine.native.layout import field, memory_field
from engine.machine.native.procedures import Refused

ADDEND, READS, WRITES, DATA_BYTES = layout.ADDEND, layout.READS, layout.WRITES, layout.DATA_BYTES
ENTRY_SHIFT = layout.ENTRY_SHIFT
LAST_DATA, LAST_FETCH, EMPTY = layout.DATA_ENTRIES - 1, layout.FETCH_ENTRIES - 1, layout.EMPTY
LAST_CONTEXT, CONTEXT_BYTES, KEY_AT, NEXT_AT = layout.CONTEXTS - 1, layout.CONTEXT_BYTES, layout.KEY_AT, layout.NEXT_AT
#: How far vsstatus is moved to be in one word with mstatus.
_GUEST_SHIFT = 24
RAM, BASE, SIZE, FLAGS, DIRTY, CODE, TABLES, TABLE_COUNT, HART_COUNT, HARTS = (
    memory_field(name)
    for name in ("ram_at", "base", "size", "flags_at", "dirty_at", "code_at", "tables_at", "table_count", "hart_count",
                 "harts_at")
)  # fmt: skip
STALE = field("stale")


def clean(h: Any) -> None:
    """Empty the present context, where there is one."""
    if h.contexts_at:
        h.empty(h.tlb_at)
    h.stale = h.stale & ~(1 << h.context)


def is_of(h: Any, context: int, k0: int, k1: int, k2: int, k3: int, k4: int, k5: int) -> bool:
    """Is it the context of this situation?"""
    at = h.contexts_at + context * CONTEXT_BYTES + KEY_AT
    same: bool = (
        h.peek(at, 8) == k0 and h.peek(at + 8, 8) == k1 and h.peek(at + 16, 8) == k2 and h.peek(at + 24, 8) == k3
        and h.peek(at + 32, 8) == k4 and h.peek(at + 40, 8) == k5
    )  # fmt: skip
    return same


def use_context(h: Any, k0: int, k1: int, k2: int, k3: int, k4: int, k5: int) -> None:
    """Make the context of a situation the present one; where there is none, the one made longest ago is taken. A
    virtual hart has no contexts. Mostly a trap's return goes back to where the trap came from. The present one is emptied,
    too, if it is stale."""
    if not h.contexts_at:
        return
    found = h.previous_context
    if not is_of(h, found, k0, k1, k2, k3, k4, k5):
        found = 0
        while found <= LAST_CONTEXT and not is_of(h, found, k0, k1, k2, k3, k4, k5):
            found += 1
        if found > LAST_CONTEXT:
            found = h.next_context
            h.next_context = found + 1 & LAST_CONTEXT
            at = h.contexts_at + found * CONTEXT_BYTES + KEY_AT
            h.poke(at, 8, k0)
            h.poke(at + 8, 8, k1)
            h.poke(at + 16, 8, k2)
            h.poke(at + 24, 8, k3)
            h.poke(at + 32, 8, k4)
            h.poke(at + 40, 8, k5)
            h.stale = h.stale | 1 << found
            h.choices = h.choices + 1
    if found != h.context:
        h.previous_context = h.context
    turn_to(h, found)


def turn_to(h: Any, context: int) -> None:
    h.context = context
    h.tlb_at = h.contexts_at + context * CONTEXT_BYTES
    if h.stale >> context & 1:
        clean(h)


def choose_anew(h: Any) -> None:
    """As privileged.choose_context, after anything."""
    h.choices = h.choices + 1
    h.chosen_status = EMPTY
    privileged.choose_context(h)


def refresh(h: Any) -> None:
    """As privileged.choose_context, after an instruction that wrote a register but did not change the mode: nothing, if all
    that decides is as it was. While MPRV is set it never is, because MPP and MPV decide then and traps change them. What
    changes anything otherwise (Python, a VM exit) chooses anew, and then nothing is known."""
    status = (
        h.mstatus & (Status.SUM | Status.MXR | Status.MPRV)
        | h.menvcfg & EnvironmentBits.PBMTE
        | (h.henvcfg & EnvironmentBits.PBMTE) >> 1
        | (h.vsstatus & (Status.SUM | Status.MXR)) << _GUEST_SHIFT
    )
    if (
        status & Status.MPRV or h.chosen_status != status or h.chosen_satp != h.satp or h.chosen_vsatp != h.vsatp
        or h.chosen_hgatp != h.hgatp
    ):  # fmt: skip
        choose_anew(h)
        h.chosen_status = status
        h.chosen_satp = h.satp
        h.chosen_vsatp = h.vsatp
        h.chosen_hgatp = h.hgatp


def change_mode(h: Any) -> None:
    """As privileged.choose_context, after a trap or a return: while nothing else changes, the same mode after the same
    context has the same context."""
    begin = h.contexts_at + h.context * CONTEXT_BYTES
    known = begin + NEXT_AT + ((h.privilege | h.virtual << 2) << 3)
    if h.peek(known, 8) >> 4 == h.choices and not h.mstatus & Status.MPRV:
        h.previous_context = h.context
        turn_to(h, h.peek(known, 8) & LAST_CONTEXT)
    else:
        privileged.choose_context(h)
        h.poke(known, 8, h.choices << 4 | h.context)


def forget_all(h: Any) -> None:
    """No translation that any hart of this memory remembers holds any more."""
    memory = h.memory_at
    at = memory + HARTS
    end = at + 8 * h.peek(memory + HART_COUNT, 8)
    while at < end:
        h.poke(h.peek(at, 8) + STALE, 8, EMPTY)
        at += 8
    clean(h)


def flush(h: Any) -> None:
    """As Memory.flush."""
    forget_all(h)
    memory = h.memory_at
    flags = h.peek(memory + FLAGS, 8)
    at = h.peek(memory + TABLES, 8)
    end = at + 4 * h.peek(memory + TABLE_COUNT, 8)
    while at < end:
        flag = flags + h.peek(at, 4)
        h.poke(flag, 1, h.peek(flag, 1) & ~TABLE)
        at += 4
    h.poke(memory + TABLE_COUNT, 8, 0)


def offset_in_ram(h: Any, physical: int) -> int:
    """Offset of a physical address, refused where there is no RAM."""
    offset: int = physical - h.peek(h.memory_at + BASE, 8)
    if offset >= h.peek(h.memory_at + SIZE, 8):
        raise Refused
    return offset


# -- mmu.Walker --------------------------------------------------------------------------------------
def has_entry(h: Any, address: int) -> bool:
    there: bool = address - h.peek(h.memory_at + BASE, 8) < h.peek(h.memory_at + SIZE, 8)
    return there


def read_entry(h: Any, address: int, place: int, level: int, stage: int) -> int:  # noqa: ARG001 (mmu.Walker)
    """From now on the entry's page is known as a page table."""
    h.walk_references = h.walk_references + 1
    memory = h.memory_at
    offset = address - h.peek(memory + BASE, 8)
    flag = h.peek(memory + FLAGS, 8) + (offset >> 12)
    flags = h.peek(flag, 1)
    if not flags & TABLE:
        h.poke(flag, 1, flags | TABLE)
        count = h.peek(memory + TABLE_COUNT, 8)
        h.poke(h.peek(memory + TABLES, 8) + 4 * count, 4, offset >> 12)
        h.poke(memory + TABLE_COUNT, 8, count + 1)
        forget_all(h)
    word: int = h.peek(h.peek(memory + RAM, 8) + offset, 8)
    return word


def write_entry(h: Any, address: int, entry: int) -> None:
    memory = h.memory_at
    offset = address - h.peek(memory + BASE, 8)
    h.poke(h.peek(memory + DIRTY, 8) + (offset >> 12), 1, 1)
    h.poke(h.peek(memory + RAM, 8) + offset, 8, entry)


# -- loads, stores, fetches --------------------------------------------------------------------------
def remember(h: Any, address: int, offset: int, table: int) -> None:
    """Let the page be used without asking, to read (READS) or to write (WRITES)."""
    page = address & ~0xFFF
    entry = h.tlb_at + table + ((address >> 12 & LAST_DATA) << ENTRY_SHIFT)
    h.poke(entry, 8, page)
    h.poke(entry + ADDEND, 8, h.peek(h.memory_at + RAM, 8) + (offset & ~0xFFF) - page)


def readable(h: Any, address: int, size: int) -> int:
    """Host address of `size` bytes that the TLB does not have; from now on it has them."""
    if (address & 0xFFF) + size > 4096:
        raise Refused
    offset = offset_in_ram(h, privileged.translate(h, address, Access.LOAD))
    remember(h, address, offset, READS)
    word: int = h.peek(h.memory_at + RAM, 8) + offset
    return word


def load_slow(h: Any, address: int, size: int) -> int:
    word: int = h.peek_sized(readable(h, address, size), size)
    return word


def writable(h: Any, address: int, size: int) -> int:
    """Host address where `size` bytes may be stored now; it is remembered if stores there may go on unnoticed."""
    if (address & 0xFFF) + size > 4096:
        raise Refused
    offset = offset_in_ram(h, privileged.translate(h, address, Access.STORE))
    memory = h.memory_at
    host: int = h.peek(memory + RAM, 8) + offset
    flag = h.peek(memory + FLAGS, 8) + (offset >> 12)
    flags = h.peek(flag, 1)
    if flags & ~TABLE:
        raise Refused
    h.poke(h.peek(memory + DIRTY, 8) + (offset >> 12), 1, 1)
    if flags:
        # A misaligned store may reach into two entries.
        if (h.peek(host & ~7, 8) | h.peek(host + size - 1 & ~7, 8)) & mmu.V:
            flush(h)
    else:
        remember(h, address, offset, WRITES)
    return host


def store_slow(h: Any, address: int, size: int, value: int) -> None:
    h.poke_sized(writable(h, address, size), size, value)


def fetch_page(h: Any, address: int) -> int:
    """As fetch_slow, but the fetch TLB is asked first."""
    entry = h.tlb_at + DATA_BYTES + ((address >> 12 & LAST_FETCH) << 4)
    if h.peek(entry, 8) == address & ~0xFFF:
        page: int = h.peek(entry + 8, 8)
        return page
    return fetch_slow(h, address)


def stopping(h: Any, address: int, page: int) -> int:
    """What to execute in the place of a decoded page at a virtual page's address: another where the hart has to stop in it,
    0 while there is none."""
    row = h.stops_at
    end = row + layout.STOP_BYTES * h.stop_count
    found = page
    while row < end:
        if h.peek(row, 8) == address:
            found = h.peek(row + 16, 8) if h.peek(row + 8, 8) == page else 0
        row += layout.STOP_BYTES
    return found


def fetch_slow(h: Any, address: int) -> int:
    """The decoded page of a virtual address; 0 if there is none yet."""
    offset = offset_in_ram(h, privileged.translate(h, address, Access.FETCH))
    page: int = h.peek(h.peek(h.memory_at + CODE, 8) + (offset >> 12 << 3), 8)
    if page and h.stop_count:
        page = stopping(h, address & ~0xFFF, page)
    if page:
        entry = h.tlb_at + DATA_BYTES + ((address >> 12 & LAST_FETCH) << 4)
        h.poke(entry, 8, address & ~0xFFF)
        h.poke(entry + 8, 8, page)
    return page
