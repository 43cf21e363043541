"""VM exits taken without leaving native code: under trap-and-emulate CSR accesses, sret, fences, traps that the guest's
own kernel handles, the timer, shadow fills and stores to page tables; under hardware assist, fills of the second stage.

Here the hart of a procedure is the *virtual* hart, which is a HartState too, so the architecture's own procedures
and the very rows of engine.isa.table act on it; `host` is the address of the hart that carries it, where the
registers, the clock and the record buffer are. What is done is what engine.hypervisor.trap_and_emulate and .shadow do
in Python, which stays the definition; that is asked whenever anything is unusual: REFUSED before anything was changed
but A and D bits, which Python's walk then finds set as it would have set them. Refused are wfi, calls to the firmware,
devices, a shadow space or table that does not exist, a frame that was given back before, and what is shared with a
clone.

A virtual hart has no clock of its own: while an exit is taken, its `steps`, `extra` and `unretired` are such that its
clock is the board's and what it retired is the vCPU's instructions; otherwise they are 0.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from engine.isa.csrs import CSR_NUMBERS, CSRS, EnvironmentBits, Status
from engine.isa.formats import Row
from engine.isa.table import ROWS
from engine.machine import csrfile, mmu, privileged
from engine.machine.loader import RAM_BASE
from engine.machine.mappings import (
    MAX_LEAVES,
    MAX_SPACES,
    PAGE_SHARED,
    RELEASE_AFTER,
    ROW_WORDS,
    SPACE_WORDS,
    ChainsState,
    FramesState,
    RamState,
    ShadowState,
    StageState,
)
from engine.machine.memory import TABLE
from engine.machine.mmu import Access
from engine.machine.native import access, layout
from engine.machine.native.layout import field, memory_field, offset_of
from engine.machine.native.lowering import UNSIGNED, Code, Scope, Value, statements
from engine.machine.native.procedures import DONE, REFUSED, RESULT, Procedures, Refused
from engine.machine.native.traps import MASK32, RECORD_BYTES, TICK_NS, follow_streak, write_record
from engine.machine.privileged import MACHINE, USER
from engine.machine.state import NEVER, NO_RESERVATION
from engine.trace.record import Action, Cause, Disposition, Interrupt, Kind, Level

#: What `space` says of a hart whose loads and fetches need two spaces (MPRV).
SPLIT = 4
SATP, STIMECMP, SRET = CSR_NUMBERS["satp"], CSR_NUMBERS["stimecmp"], 0x10200073
TIMER_LINE = 1 << Interrupt.SUPERVISOR_TIMER
PC, STEPS, EXTRA, UNRETIRED, HOST_SATP, STATUS, FLOAT_STATUS, LEAVE = (
    field(name) for name in ("pc", "steps", "extra", "unretired", "satp", "mstatus", "fcsr", "leave")
)
RECORD_AT, RECORD_COUNT, RECORD_LIMIT, RECORD_IDS, POSITION_BASE, STARTED, EXIT_ROUTE, FILL_ROUTE = (
    field(name)
    for name in ("record_at", "record_count", "record_limit", "record_ids", "position_base", "time_started",
                 "exit_route", "fill_route")
)  # fmt: skip
OPS, PAGE_PC, RESERVATION, STALE, CONTEXT, NEXT_EVENT, OTHER_EVENT, HORIZON = (
    field(name)
    for name in ("ops", "page_pc", "reservation", "stale", "context", "next_event", "other_event", "horizon")
)
SPACES, LEAVES, TABLE_PAGES, STORES, FILLED, DROPPED, REMEMBERED = (
    offset_of(ShadowState, name)
    for name in ("spaces_at", "leaves_at", "table_pages_at", "stores_at", "filled", "dropped", "remembered")
)
MAP, PAGES, WATCHED, FRAMES, AWAY, TARGET, WALKED, LEVEL, TRAIL = (
    offset_of(RamState, name)
    for name in ("map_at", "pages", "watched", "frames_at", "away", "target", "leaf", "level", "trail")
)
LOW, HIGH, RECYCLED, PROMISED, RESERVED = (
    offset_of(FramesState, name) for name in ("low", "high", "recycled", "promised", "reserved")
)
STAGE_COUNT, STAGE_LIMIT, STAGE_TABLES = (
    offset_of(StageState, name) for name in ("count", "limit", "tables_at")
)
COUNT, HEADS, TABLE_ROWS = (offset_of(ChainsState, name) for name in ("count", "heads_at", "rows_at"))
HOST_RAM, FLAGS, DIRTY, HOST_BASE, HOST_BYTES = (
    memory_field(name) for name in ("ram_at", "flags_at", "dirty_at", "base", "size")
)
FIRST_PAGE = RAM_BASE >> 12
FRAME = PAGE_SHARED - 1
ROW_BYTES = 8 * ROW_WORDS
#: Bits of a shadow leaf besides R, W, X, and of a leaf of the second stage.
SHADOW_LEAF = mmu.V | mmu.U | mmu.A | mmu.D
STAGE_LEAF = mmu.V | mmu.R | mmu.X | mmu.U | mmu.A
LAST_LEVEL, LEVEL_BITS = mmu.LEVELS - 1, 3
LAST_WORD = 4092
FLOATS = Status.FS | Status.SD
SPACE_BYTES = 8 * SPACE_WORDS
#: Where the path ids begin in `exit_route` and `fill_route`.
PATHS_SHIFT = 32


# -- which shadow space holds ------------------------------------------------------------------------
def space(h: Any) -> int:
    """What besides satp decides which shadow space a virtual hart needs: its privilege and, in S and U mode with
    paging, SUM and MXR. MACHINE without translation, SPLIT where every access must exit."""
    found: int = h.privilege | h.mstatus & (Status.SUM | Status.MXR)
    if h.satp >> 60:
        if privileged.data_privilege(h) != h.privilege:
            found = SPLIT
        elif h.privilege == MACHINE:
            found = MACHINE
    else:
        found = MACHINE
    return found


def is_translated(found: int) -> bool:
    """Does satp belong to the key of this `space`?"""
    return found != SPLIT and found != MACHINE


def space_row(h: Any) -> int:
    """Address of the row of the shadow space that the virtual hart needs now; 0 if that space has yet to be made."""
    wanted = space(h)
    root = h.satp if is_translated(wanted) else 0
    row = h.peek(h.shadow_at + SPACES, 8)
    end = row + SPACE_BYTES * MAX_SPACES
    while row < end:
        if h.peek(row + 8, 8) == wanted and h.peek(row, 8) == root and h.peek(row + 16, 8):
            found: int = row
            return found
        row += SPACE_BYTES
    return 0


def space_satp(h: Any) -> int:
    """The host satp of that space, or 0."""
    row = space_row(h)
    if not row:
        return 0
    satp: int = h.peek(row + 16, 8)
    return satp


def granted(h: Any, entry: int) -> int:
    """R, W, X of a guest leaf as they hold for a virtual hart's present privilege. W only once D is set."""
    found = 0
    if mmu.permitted(entry, Access.LOAD, h.privilege, h.mstatus):
        found |= mmu.R
    if mmu.permitted(entry, Access.FETCH, h.privilege, h.mstatus):
        found |= mmu.X
    if entry & mmu.D and mmu.permitted(entry, Access.STORE, h.privilege, h.mstatus):
        found |= mmu.W
    return found


# -- exits -------------------------------------------------------------------------------------------
def take_exit(h: Any, host: int, cause: int, value: int) -> int:
    """A VM exit at the host hart's pc. Returns whether that hart's context has to be chosen again. Ends as ILLEGAL or
    TRAPPED when the guest's own kernel takes the trap, for `reflect_illegal` or `reflect_fault`."""
    if h.peek(host + RECORD_COUNT, 8) >= h.peek(host + RECORD_LIMIT, 8):
        raise Refused
    _catch_up(h, host)
    if cause == Cause.ILLEGAL_INSTRUCTION:
        switched: int = _emulate(h, host, value)
        return switched
    if cause == Cause.ECALL_U:
        kind = Kind.HYPERCALL if h.privilege else Kind.SYSCALL
        return _inject(h, host, cause, value, Cause.ECALL_U + h.privilege, kind)
    if (
        cause == Cause.INSTRUCTION_PAGE_FAULT or cause == Cause.LOAD_PAGE_FAULT or cause == Cause.STORE_PAGE_FAULT
    ):  # fmt: skip
        return _page_fault(h, host, cause, value)
    raise Refused


def reflect_illegal(h: Any, host: int, cause: int, value: int) -> int:
    """The guest takes the illegal-instruction trap; see `take_exit`."""
    return _inject(h, host, cause, value, cause, Kind.EXCEPTION)


def reflect_fault(h: Any, host: int, cause: int, value: int) -> int:
    """The guest takes the fault that the walk of its own tables raised; see `take_exit`."""
    return _inject(h, host, cause, value, h.trap_cause, Kind.PAGE_FAULT)


def _catch_up(h: Any, host: int) -> None:
    h.pc = h.peek(host + PC, 8)
    h.steps = h.peek(host + STEPS, 8)
    h.extra = h.peek(host + EXTRA, 8) - h.peek(host + STARTED, 8)
    h.unretired = h.peek(host + UNRETIRED, 8) - h.instructions_base
    if h.peek(host + STATUS, 8) & Status.SD:
        h.mstatus = h.mstatus | FLOATS


def _emulate(h: Any, host: int, word: int) -> int:
    """An instruction that U mode may not execute: the virtual hart does."""
    privilege = h.privilege
    status = h.mstatus
    root = h.satp
    at = h.pc
    number = word >> 20
    register = word >> 15 & 31
    rd = word >> 7 & 31
    way = word >> 12 & 7
    source = register if way & 4 else h.peek(host + 8 * register, 8)
    timer = number == STIMECMP and (way & 3 == 1 or register)
    if timer and not _keeps_time(h, host):
        raise Refused
    result = h.emulate(word, source)
    satp = h.peek(host + HOST_SATP, 8)
    if h.privilege != privilege or h.mstatus != status or h.satp != root:
        satp = space_satp(h)
        if not satp:
            h.privilege = privilege
            h.mstatus = status
            h.satp = root
            raise Refused
    if timer:
        _retime(h, host)
    action = Action.SFENCE
    a = source
    b = 0
    h.pc = at + 4
    if word == SRET:
        h.pc = result
        action = Action.SRET
        a = result
        b = h.privilege
    elif way:
        if rd:
            h.poke(host + 8 * rd, 8, result)
        if way & 3 != 1 and not register:
            action = Action.CSR_READ
            a = number
            b = result if rd else 0
        elif number == SATP:
            action = Action.ADDRESS_SPACE
            a = h.satp
            b = 1
        else:
            action = Action.CSR_WRITE
            a = number
            b = source
    h.unretired = h.unretired - 1
    h.instructions_base = h.instructions_base + 1
    return _resume(
        h, host, satp, privilege, at, Kind.VM_EXIT, Disposition.EMULATED, action, a, b, Cause.ILLEGAL_INSTRUCTION, word,
        word,
    )  # fmt: skip


def _keeps_time(h: Any, host: int) -> bool:
    """Is the board's time plain enough for `_retime`, and no event due?"""
    now = h.peek(host + STEPS, 8) + h.peek(host + EXTRA, 8)
    if h.time_offset >= NEVER or h.peek(host + STARTED, 8) >= NEVER:
        return False
    due: bool = h.peek(host + OTHER_EVENT, 8) <= now
    return not due


def timer_changed(h: Any) -> None:
    """As Hart.timer_changed; the rest of it is `_retime`."""
    reached = 0
    if h.menvcfg & EnvironmentBits.STCE:
        h.mip = h.mip & ~TIMER_LINE
        if h.time_ticks >= h.stimecmp:
            reached = TIMER_LINE
    h.lines = h.lines & ~TIMER_LINE | reached


def _retime(h: Any, host: int) -> None:
    """As Host.retime, when only stimecmp changed. An event that is now later is only looked for too early."""
    event = h.peek(host + OTHER_EVENT, 8)
    if h.menvcfg & EnvironmentBits.STCE and not h.lines & TIMER_LINE:
        ticks = h.stimecmp - h.time_offset if h.stimecmp > h.time_offset else 0
        if ticks < NEVER // TICK_NS:
            event = min(event, ticks * TICK_NS + h.peek(host + STARTED, 8))
    h.poke(host + NEXT_EVENT, 8, event)
    h.poke(host + HORIZON, 8, min(event, h.peek(host + HORIZON, 8)))


def _inject(h: Any, host: int, cause: int, value: int, own_cause: int, kind: int) -> int:
    """The guest's handler runs next, for the trap that its hart takes by itself."""
    to = privileged.trap_target(h, own_cause, False)
    if (to == MACHINE and h.monitored) or h.mstatus & Status.MPRV:
        raise Refused
    origin = h.privilege
    h.privilege = to
    satp = space_satp(h)
    h.privilege = origin
    if not satp:
        raise Refused
    follow_streak(h, own_cause)
    at = h.pc
    privileged.enter_trap(h, to, own_cause, value, False)
    return _resume(
        h, host, satp, origin, at, kind, Disposition.INJECTED, Action.INJECT_EXCEPTION, own_cause, h.pc, cause, value,
        value if cause == Cause.ILLEGAL_INSTRUCTION else 0,
    )  # fmt: skip


def path_of(route: int, origin: int, to: int) -> int:
    """The path id in `exit_route` or `fill_route` from one privilege to another."""
    path: int = route >> (PATHS_SHIFT + (0 if origin == USER else 16) + (0 if to == USER else 8)) & 0xFF
    return path


def _resume(
    h: Any, host: int, satp: int, origin: int, at: int, kind: int, disposition: int, action: int, a: int, b: int,
    cause: int, value: int, instruction: int,
) -> int:  # fmt: skip
    """Write the record, charge the switch, and go on. Returns as `_go_on`."""
    steps = h.peek(host + STEPS, 8)
    extra = h.peek(host + EXTRA, 8)
    fills = action == Action.SHADOW_FILL or action == Action.DIRTY or action == Action.COPY_ON_WRITE
    route = h.peek(host + (FILL_ROUTE if fills else EXIT_ROUTE), 8)
    cost = route & MASK32
    path = path_of(route, origin, h.privilege)
    count = h.peek(host + RECORD_COUNT, 8)
    executed = h.retired - h.reported
    h.reported = h.retired
    write_record(
        h, h.peek(host + RECORD_AT, 8) + count * RECORD_BYTES, steps + extra,
        h.peek(host + POSITION_BASE, 8) + steps - 1, at, value, a, b, min(executed, MASK32), cost,
        instruction, h.peek(host + RECORD_IDS, 8), kind, cause, path, disposition, action,
        Level.USER if origin == USER else Level.KERNEL_DEPRIVILEGED,
        Level.USER if h.privilege == USER else Level.KERNEL_DEPRIVILEGED,
    )  # fmt: skip
    h.poke(host + RECORD_COUNT, 8, count + 1)
    h.poke(host + EXTRA, 8, extra + cost)
    return _go_on(h, host, satp)


def resume(h: Any, host: int) -> int:
    """For Python: as TrapAndEmulate._resume of a vCPU that can go on, in a space that exists. Returns as `_go_on`."""
    satp = space_satp(h)
    if not satp:
        raise Refused
    h.poke(host + FLOAT_STATUS, 8, h.fcsr)
    return _go_on(h, host, satp)


def _go_on(h: Any, host: int, satp: int) -> int:
    """The host hart is where the virtual one is. Returns whether its context has to be chosen again."""
    h.poke(host + PC, 8, h.pc)
    h.poke(host + STATUS, 8, h.peek(host + STATUS, 8) & ~FLOATS | h.mstatus & FLOATS)
    if privileged.pending_interrupt(h):
        h.poke(host + LEAVE, 1, 1)
    before = h.peek(host + HOST_SATP, 8)
    h.poke(host + HOST_SATP, 8, satp)
    return 1 if satp != before or h.peek(host + STALE, 8) >> h.peek(host + CONTEXT, 8) & 1 else 0


# -- guest physical memory: mmu.Walker of a virtual hart ---------------------------------------------
def page_word(h: Any, address: int) -> int:
    """What RamState.map_at has for the page of a guest physical address in RAM."""
    at = h.peek(h.guest_ram_at + MAP, 8)
    word: int = h.peek(at + 8 * ((address >> 12) - FIRST_PAGE), 8)
    return word


def has_entry(h: Any, address: int) -> bool:
    there: bool = (address >> 12) - FIRST_PAGE < h.peek(h.guest_ram_at + PAGES, 8)
    return there


def read_entry(h: Any, address: int, place: int, level: int, stage: int) -> int:  # noqa: ARG001 (mmu.Walker)
    """What `leaf`, `level` and `trail` of RamState are is noted besides."""
    frame = page_word(h, address) & FRAME
    if not frame:
        raise Refused
    entry = entry_of(h, (frame - 1 << 12) + (address & 0xFFF))
    h.poke(h.guest_ram_at + WALKED, 8, entry)
    h.poke(h.guest_ram_at + LEVEL, 8, level)
    h.poke(h.guest_ram_at + TRAIL + 8 * level, 8, address & ~0xFFF)
    return entry


def write_entry(h: Any, address: int, entry: int) -> None:
    h.poke(storable(h, address), 8, entry)
    h.poke(h.guest_ram_at + WALKED, 8, entry)


def walk(h: Any, address: int, access: int) -> None:
    """For Python: where a guest's address leads, and by which tables, in `target`, `leaf`, `level` and `trail`."""
    h.poke(h.guest_ram_at + LEVEL, 8, mmu.LEVELS)
    h.poke(h.guest_ram_at + TARGET, 8, privileged.translate(h, address, access))


def look(h: Any, address: int, access: int, options: int) -> None:
    """As `walk`, with these options of mmu.walk, which say that nothing is to be set in the tables."""
    h.poke(h.guest_ram_at + LEVEL, 8, mmu.LEVELS)
    h.poke(h.guest_ram_at + TARGET, 8, mmu.walk(h, h.satp, 0, address, access, h.privilege, options))


def storable(h: Any, address: int) -> int:
    """Where in this process the guest's RAM at `address` is, for a store that nobody else has to be told of."""
    word = page_word(h, address)
    frame = (word & FRAME) - 1
    memory = h.memory_at
    if not word & FRAME or word & PAGE_SHARED or frame >= h.peek(memory + HOST_BYTES, 8) >> 12:
        raise Refused
    if h.peek(h.peek(memory + FLAGS, 8) + frame, 1):
        raise Refused
    h.poke(h.peek(memory + DIRTY, 8) + frame, 1, 1)
    place: int = h.peek(memory + HOST_RAM, 8) + (frame << 12) + (address & 0xFFF)
    return place


def take_frame(h: Any, ram: int, index: int) -> int:
    """A frame for a guest page that has none yet; returns its number plus 1."""
    frames = h.peek(ram + FRAMES, 8)
    high: int = h.peek(frames + HIGH, 8)
    if h.peek(ram + AWAY, 8) or index + FIRST_PAGE == h.peek(ram + WATCHED, 8):
        raise Refused
    if h.peek(frames + RECYCLED, 8) or high <= h.peek(frames + LOW, 8):
        raise Refused
    h.poke(frames + HIGH, 8, high - 1)
    h.poke(frames + PROMISED, 8, h.peek(frames + PROMISED, 8) - 1)
    h.poke(h.peek(ram + MAP, 8) + 8 * index, 8, high)
    return high


# -- chains (engine.hypervisor.chains) ---------------------------------------------------------------
def first_row(h: Any, chains: int, index: int) -> int:
    """Number of the first row of a page's chain; 0: it has none."""
    number: int = h.peek(h.peek(chains + HEADS, 8) + 8 * index, 8)
    return number


def add_row(h: Any, chains: int, index: int, space: int, what: int) -> None:
    number = h.peek(chains + COUNT, 8) + 1
    h.poke(chains + COUNT, 8, number)
    row = h.peek(chains + TABLE_ROWS, 8) + ROW_BYTES * number
    h.poke(row, 8, space)
    h.poke(row + 8, 8, what)
    h.poke(row + 16, 8, index + FIRST_PAGE)
    h.poke(row + 24, 8, first_row(h, chains, index))
    h.poke(h.peek(chains + HEADS, 8) + 8 * index, 8, number)


def has_row(h: Any, chains: int, index: int, space: int, what: int) -> bool:
    rows = h.peek(chains + TABLE_ROWS, 8)
    number = first_row(h, chains, index)
    while number:
        row = rows + ROW_BYTES * number
        if h.peek(row + 8, 8) == what and h.peek(row, 8) == space:
            return True
        number = h.peek(row + 24, 8)
    return False


# -- shadow tables -----------------------------------------------------------------------------------
def root_of(h: Any, space: int) -> int:
    """Frame of the root table of a space, by its number."""
    satp: int = h.peek(h.peek(h.shadow_at + SPACES, 8) + SPACE_BYTES * (space - 1) + 16, 8)
    return (satp & mmu.ROOT_PAGES) - FIRST_PAGE


def entry_of(h: Any, offset: int) -> int:
    """A word of the host's RAM. Refused outside, wherever a table may lead that came with a snapshot."""
    if offset >= h.peek(h.memory_at + HOST_BYTES, 8):
        raise Refused
    entry: int = h.peek(h.peek(h.memory_at + HOST_RAM, 8) + offset, 8)
    return entry


def set_entry(h: Any, offset: int, entry: int) -> None:
    """Write an entry, which was read before, of a table that the host's harts walk. As Memory.write does; but the pages
    stay known as tables, which the next walk would find out anyway."""
    memory = h.memory_at
    if h.peek(h.peek(memory + FLAGS, 8) + (offset >> 12), 1) & TABLE and entry_of(h, offset) & mmu.V:
        access.forget_all(h)
    h.poke(h.peek(memory + DIRTY, 8) + (offset >> 12), 1, 1)
    h.poke(h.peek(memory + HOST_RAM, 8) + offset, 8, entry)


def leaf_offset(h: Any, space: int, address: int) -> int:
    """Offset in the host's RAM of the leaf entry for a virtual address; 0: there is no table for it."""
    table = root_of(h, space)
    for level in range(2, 0, -1):
        entry = entry_of(h, (table << 12) + 8 * (address >> (12 + 9 * level) & 0x1FF))
        if not entry & mmu.V:
            return 0
        table = (entry >> 10) - FIRST_PAGE
    return (table << 12) + 8 * (address >> 12 & 0x1FF)


def _page_fault(h: Any, host: int, cause: int, address: int) -> int:
    """A fault on the shadow tables: the guest's own, or a leaf to fill, or a store to one of the guest's tables."""
    shadow = h.shadow_at
    row = space_row(h)
    wanted = space(h)
    if wanted == SPLIT or not row:
        raise Refused
    stores = cause == Cause.STORE_PAGE_FAULT
    target = address
    permissions = mmu.R | mmu.W | mmu.X
    ram = h.guest_ram_at
    h.poke(ram + LEVEL, 8, mmu.LEVELS)
    if is_translated(wanted):
        way = Access.FETCH if cause == Cause.INSTRUCTION_PAGE_FAULT else Access.STORE if stores else Access.LOAD
        target = mmu.walk(h, h.satp, 0, address, way, h.privilege, privileged.walk_options(h, 0))
        permissions = granted(h, h.peek(ram + WALKED, 8))
    if not has_entry(h, target):
        raise Refused
    index = (target >> 12) - FIRST_PAGE
    tables = h.peek(shadow + TABLE_PAGES, 8)
    if stores and first_row(h, tables, index):
        return _store_to_table(h, host, cause, address, target)
    number = (row - h.peek(shadow + SPACES, 8)) // SPACE_BYTES + 1
    offset = leaf_offset(h, number, address)
    present = entry_of(h, offset)
    word = page_word(h, target)
    if not offset or h.peek(shadow + REMEMBERED, 8) >= MAX_LEAVES or (stores and word & PAGE_SHARED):
        raise Refused
    frame = word & FRAME
    if not frame:
        frame = take_frame(h, ram, index)
    action = Action.DIRTY if stores and present & mmu.V else Action.SHADOW_FILL
    if word & PAGE_SHARED:
        permissions = permissions & ~mmu.W
    physical = FIRST_PAGE + frame - 1
    put_leaf(h, offset, number, address, index, physical << 10 | SHADOW_LEAF | permissions)
    return _resume(
        h, host, h.peek(host + HOST_SATP, 8), h.privilege, h.pc, Kind.PAGE_FAULT, Disposition.EMULATED, action, target,
        physical << 12 | target & 0xFFF, cause, address, 0,
    )  # fmt: skip


def put_leaf(h: Any, offset: int, space: int, address: int, index: int, leaf: int) -> None:
    """Write the leaf for an address, at an offset of the host's RAM, that maps a guest page and rests on the latest
    walk. Python calls it too, as ShadowTables._put_leaf."""
    entry_of(h, offset)
    shadow = h.shadow_at
    ram = h.guest_ram_at
    level = h.peek(ram + LEVEL, 8)
    while level <= LAST_LEVEL:
        span = 21 + 9 * level
        table = h.peek(ram + TRAIL + 8 * level, 8)
        _use(h, (table >> 12) - FIRST_PAGE, space, address >> span << span | level)
        level += 1
    if first_row(h, h.peek(shadow + TABLE_PAGES, 8), index):
        leaf = leaf & ~mmu.W
    set_entry(h, offset, leaf)
    add_row(h, h.peek(shadow + LEAVES, 8), index, space, address >> 12)
    h.poke(shadow + FILLED, 8, h.peek(shadow + FILLED, 8) + 1)
    h.poke(shadow + REMEMBERED, 8, h.peek(shadow + REMEMBERED, 8) + 1)


def _use(h: Any, index: int, space: int, what: int) -> None:
    """As ShadowTables._use."""
    shadow = h.shadow_at
    tables = h.peek(shadow + TABLE_PAGES, 8)
    if not first_row(h, tables, index):
        _change_leaves(h, index, ~mmu.W)
    if not has_row(h, tables, index, space, what):
        add_row(h, tables, index, space, what)
    h.poke(h.peek(shadow + STORES, 8) + index, 1, 0)


def _change_leaves(h: Any, index: int, kept: int) -> None:
    """Let every leaf of a guest page have only these of its bits."""
    leaves = h.peek(h.shadow_at + LEAVES, 8)
    number = first_row(h, leaves, index)
    while number:
        row = h.peek(leaves + TABLE_ROWS, 8) + ROW_BYTES * number
        if h.peek(row, 8):
            offset = leaf_offset(h, h.peek(row, 8), h.peek(row + 8, 8) << 12)
            if offset:
                set_entry(h, offset, entry_of(h, offset) & kept)
        number = h.peek(row + 24, 8)


# -- stores to page tables ---------------------------------------------------------------------------
def _store_to_table(h: Any, host: int, cause: int, address: int, target: int) -> int:
    """The store at pc goes to a guest page that the shadow tables rest on."""
    at = h.pc
    code = h.peek(host + OPS, 8)
    if h.peek(host + PAGE_PC, 8) != at & ~0xFFF or at & 0xFFF > LAST_WORD:
        raise Refused
    word = h.peek(code + layout.CONTENT_AT + (at & 0xFFF), 4)
    length = 4
    if word & 3 != 3:
        word = word & 0xFFFF
        length = 2
    size = h.stored_bytes(word)
    if not size or (target & 0xFFF) + size > 4096:
        raise Refused
    place = storable(h, target)
    register = h.peek(code + ((at & 0xFFE) << 3) + layout.RS2, 1)
    value = h.peek(host + 8 * register, 8)
    memory = h.memory_at
    there = place - h.peek(memory + HOST_RAM, 8) + h.peek(memory + HOST_BASE, 8)
    h.reservation = target if h.peek(host + RESERVATION, 8) == there else NO_RESERVATION
    h.poke(host + RESERVATION, 8, NO_RESERVATION)
    h.poke_sized(place, size, value)
    table_stored(h, target, size)
    h.pc = at + length
    h.unretired = h.unretired - 1
    h.instructions_base = h.instructions_base + 1
    return _resume(
        h, host, h.peek(host + HOST_SATP, 8), h.privilege, at, Kind.PAGE_FAULT, Disposition.EMULATED,
        Action.PAGE_TABLE_WRITE, target, value, cause, address, word,
    )  # fmt: skip


def table_stored(h: Any, target: int, size: int) -> None:
    """As ShadowTables.stored, of a table page and within it. Python calls it too."""
    shadow = h.shadow_at
    index = (target >> 12) - FIRST_PAGE
    place = h.peek(shadow + STORES, 8) + index
    stores = h.peek(place, 1) + 1
    h.poke(place, 1, stores)
    if stores >= RELEASE_AFTER:
        _release(h, index)
        return
    tables = h.peek(shadow + TABLE_PAGES, 8)
    entry = (target & 0xFFF) >> 3
    last = (target + size - 1 & 0xFFF) >> 3
    while entry <= last:
        number = first_row(h, tables, index)
        while number:
            row = h.peek(tables + TABLE_ROWS, 8) + ROW_BYTES * number
            what = h.peek(row + 8, 8)
            if h.peek(row, 8):
                level = what & LEVEL_BITS
                _drop_range(h, h.peek(row, 8), (what & ~LEVEL_BITS) + (entry << (12 + 9 * level)), level)
            number = h.peek(row + 24, 8)
        entry += 1


def _release(h: Any, index: int) -> None:
    """As ShadowTables._release."""
    tables = h.peek(h.shadow_at + TABLE_PAGES, 8)
    number = first_row(h, tables, index)
    while number:
        row = h.peek(tables + TABLE_ROWS, 8) + ROW_BYTES * number
        space = h.peek(row, 8)
        if space:
            what = h.peek(row + 8, 8)
            level = what & LEVEL_BITS
            if level == LAST_LEVEL:
                _drop_upper(h, root_of(h, space), LAST_LEVEL)
            else:
                _drop_range(h, space, what & ~LEVEL_BITS, level + 1)
        h.poke(row, 8, 0)
        number = h.peek(row + 24, 8)
    h.poke(h.peek(tables + HEADS, 8) + 8 * index, 8, 0)
    _change_leaves(h, index, 0)


def _drop_range(h: Any, space: int, address: int, level: int) -> None:
    """As ShadowTables._drop_range."""
    table = root_of(h, space)
    above = LAST_LEVEL
    while above > level:
        entry = entry_of(h, (table << 12) + 8 * (address >> (12 + 9 * above) & 0x1FF))
        if not entry & mmu.V:
            return
        table = (entry >> 10) - FIRST_PAGE
        above -= 1
    offset = (table << 12) + 8 * (address >> (12 + 9 * level) & 0x1FF)
    entry = entry_of(h, offset)
    if not entry & mmu.V:
        return
    table = (entry >> 10) - FIRST_PAGE
    if level == 0:
        _drop(h, offset)
    elif level == 1:
        _drop_lowest(h, table)
    else:
        _drop_upper(h, table, 1)


def _drop_upper(h: Any, table: int, level: int) -> None:
    """Clear every leaf below a table of level 1 or 2."""
    offset = table << 12
    end = offset + 4096
    while offset < end:
        entry = entry_of(h, offset)
        if entry & mmu.V:
            if level == 1:
                _drop_lowest(h, (entry >> 10) - FIRST_PAGE)
            else:
                _drop_upper(h, (entry >> 10) - FIRST_PAGE, 1)
        offset += 8


def _drop_lowest(h: Any, table: int) -> None:
    """Clear every leaf of a table of level 0."""
    offset = table << 12
    end = offset + 4096
    while offset < end:
        if entry_of(h, offset) & mmu.V:
            _drop(h, offset)
        offset += 8


def _drop(h: Any, offset: int) -> None:
    set_entry(h, offset, 0)
    h.poke(h.shadow_at + DROPPED, 8, h.peek(h.shadow_at + DROPPED, 8) + 1)


# -- the second stage (here `h` is the host's hart) --------------------------------------------------
def fill_second_stage(h: Any, cause: int, value: int) -> None:
    """A guest-page fault, of a hart that carries a guest under hardware assist: as HardwareAssist._guest_page_fault
    where the guest page is in RAM."""
    ram = h.guest_ram_at
    target = h.fault_gpa << 2 | value & 3
    page = target >> 12
    index = page - FIRST_PAGE
    if h.record_count >= h.record_limit or cause == Cause.VIRTUAL_INSTRUCTION or index >= h.peek(ram + PAGES, 8):
        raise Refused
    stores = cause == Cause.STORE_GUEST_PAGE_FAULT or h.fault_instruction == mmu.TABLE_WRITE
    word = h.peek(h.peek(ram + MAP, 8) + 8 * index, 8)
    if stores and word & PAGE_SHARED:
        raise Refused
    upper_at = ((h.hgatp & mmu.ROOT_PAGES) - FIRST_PAGE << 12) + 8 * (page >> 18 & 0x7FF)
    upper = entry_of(h, upper_at)
    lower_at = 8 * (page >> 9 & 0x1FF)
    lower = 0
    missing = 2
    if upper & mmu.V:
        lower_at += (upper >> 10) - FIRST_PAGE << 12
        lower = entry_of(h, lower_at)
        missing = 1
    if lower & mmu.V:
        missing = 0
        if (lower >> 10) - FIRST_PAGE >= h.peek(h.memory_at + HOST_BYTES, 8) >> 12:
            raise Refused
    frames = h.peek(ram + FRAMES, 8)
    if missing:
        low = h.peek(frames + LOW, 8)
        high = h.peek(frames + HIGH, 8)
        promised = h.peek(frames + PROMISED, 8)
        if low >= high or high > h.peek(h.memory_at + HOST_BYTES, 8) >> 12 or promised > high:
            raise Refused
        if h.peek(frames + RECYCLED, 8) or h.peek(frames + RESERVED, 8) or high - low < promised + missing:
            raise Refused
        if h.peek(h.stage_at + STAGE_COUNT, 8) + missing > h.peek(h.stage_at + STAGE_LIMIT, 8):
            raise Refused
    frame = word & FRAME
    if not frame:
        frame = take_frame(h, ram, index)
    if missing == 2:
        upper = add_table(h, frames, upper_at)
        lower_at += (upper >> 10) - FIRST_PAGE << 12
    if missing:
        lower = add_table(h, frames, lower_at)
    offset = ((lower >> 10) - FIRST_PAGE << 12) + 8 * (page & 0x1FF)
    physical = FIRST_PAGE + frame - 1
    leaf = STAGE_LEAF if word & PAGE_SHARED else STAGE_LEAF | mmu.W | mmu.D
    set_entry(h, offset, physical << 10 | leaf)
    level = Level.USER if h.privilege == USER else Level.KERNEL
    cost = h.fill_route & MASK32
    executed = h.retired - h.reported
    h.reported = h.retired
    write_record(
        h, h.record_at + h.record_count * RECORD_BYTES, h.clock, h.position_base + h.steps - 1, h.pc, value, target,
        physical << 12 | target & 0xFFF, min(executed, MASK32), cost, 0, h.record_ids, Kind.PAGE_FAULT, cause,
        path_of(h.fill_route, h.privilege, h.privilege), Disposition.EMULATED, Action.SECOND_STAGE_FILL,
        level, level,
    )  # fmt: skip
    h.record_count = h.record_count + 1
    h.extra = h.extra + cost


def add_table(h: Any, frames: int, offset: int) -> int:
    """Make a table of the second stage, of a frame that was never taken; returns its entry, which is at an offset of
    the host's RAM."""
    frame = h.peek(frames + LOW, 8)
    h.poke(frames + LOW, 8, frame + 1)
    stage = h.stage_at
    count = h.peek(stage + STAGE_COUNT, 8)
    h.poke(h.peek(stage + STAGE_TABLES, 8) + 8 * count, 8, frame)
    h.poke(stage + STAGE_COUNT, 8, count + 1)
    entry: int = FIRST_PAGE + frame << 10 | mmu.V
    set_entry(h, offset, entry)
    return entry


# -- the instructions --------------------------------------------------------------------------------
class EmulatedScope(Scope):
    """A privileged row on the virtual hart: operands from the encoding `%word`, the value of rs1 or uimm in `%source`.
    The result is what it writes to rd, or where it jumps."""

    def __init__(self, code: Code, procedures: Procedures) -> None:
        super().__init__(code)
        self.procedures = procedures
        self.result = "0"
        self.primitives |= {
            "csr_read": self._csr("read"), "csr_write": self._csr("write"), "csr_set": self._csr("set"),
            "csr_clear": self._csr("clear"), "sret": self._sret, "sfence_vma": self._fence,
        }  # fmt: skip

    def read(self, name: str) -> Value:
        if name in ("rs1", "uimm"):
            return Value("%source", UNSIGNED)
        place = {"csr": 20, "rs1_index": 15, "rd_index": 7}.get(name)
        if place is None:
            return super().read(name)
        shifted = self.code.op(f"lshr i64 %word, {place}")
        return Value(self.code.op(f"and i64 {shifted}, {0xFFF if name == 'csr' else 31}"), UNSIGNED)

    def write(self, name: str, value: Value) -> bool:
        if name == "rd":
            self.result = value.text
        return name == "rd"

    def _call(self, function: str, *arguments: str) -> str:
        code = self.code
        listed = "".join(f", i64 {argument}" for argument in arguments)
        result = code.op(f"call {RESULT} {function}(ptr %s{listed})")
        ended = code.op(f"icmp eq i64 {code.op(f'extractvalue {RESULT} {result}, 1')}, {DONE}")
        done, other = code.branch(ended, likely=True)
        code.label(other)
        code.end(f"ret {RESULT} {result}")
        code.label(done)
        return code.op(f"extractvalue {RESULT} {result}, 0")

    def _csr(self, how: str) -> Callable[[list[ast.expr]], Value]:
        def lower(args: list[ast.expr]) -> Value:
            code = self.code
            number, *arguments = (self.number(arg).text for arg in args)
            at = code.op(f"getelementptr ptr, ptr @csr_{how}, i64 {number}")
            function = code.op(f"load ptr, ptr {at}")
            if how == "write":
                timer = self.procedures.need(csrfile.access_write, (CSRS[STIMECMP],))
                is_timer = code.op(f"icmp eq i64 {number}, {STIMECMP}")
                function = code.op(f"select i1 {is_timer}, ptr {timer}, ptr {function}")
            there, none = code.branch(code.op(f"icmp ne ptr {function}, null"), likely=True)
            code.label(none)
            code.end(f"ret {RESULT} {_REFUSED}")
            code.label(there)
            return Value(self._call(function, *arguments), UNSIGNED)

        return lower

    def _sret(self, _args: list[ast.expr]) -> None:
        self.result = self._call(self.procedures.need(privileged.sret))

    def _fence(self, _args: list[ast.expr]) -> None:
        self._call(self.procedures.need(privileged.check_fence))


_REFUSED = f"{{ i64 0, i64 {REFUSED} }}"
EMULATE = "@exit.emulate"
_PRIVILEGED = {"csr_read", "sret", "sfence_vma"}


def _is_emulated(row: Row) -> bool:
    names = {node.id for part in statements(row.semantics) for node in ast.walk(part) if isinstance(node, ast.Name)}
    return not names.isdisjoint(_PRIVILEGED)


STORED_BYTES = "@exit.stored_bytes"


def stored_bytes() -> str:
    """The function STORED_BYTES(hart, word): how many bytes of rs2 an instruction stores, and nothing else; 0 of any
    other."""
    code = Code()
    for row in ROWS:
        found = re.fullmatch(r"store\(rs1 \+ imm, (\d), rs2\)", row.semantics)
        if found:
            bits = code.op(f"and i64 %word, {row.mask}")
            this, other = code.branch(code.op(f"icmp eq i64 {bits}, {row.match}"))
            code.label(this)
            code.end(f"ret {RESULT} {{ i64 {found[1]}, i64 {DONE} }}")
            code.label(other)
    code.end(f"ret {RESULT} {{ i64 0, i64 {DONE} }}")
    return code.text(f"define internal {RESULT} {STORED_BYTES}(ptr nonnull %s, i64 %word) #1")


def emulator(procedures: Procedures) -> str:
    """The function EMULATE(virtual hart, word, source): the instruction on the virtual hart, whose pc stays as it
    is. REFUSED where Python has to execute it."""
    code = Code()
    for row in filter(_is_emulated, ROWS):
        bits = code.op(f"and i64 %word, {row.mask}")
        this, other = code.branch(code.op(f"icmp eq i64 {bits}, {row.match}"))
        code.label(this)
        scope = EmulatedScope(code, procedures)
        scope.run(statements(row.semantics))
        result = code.op(f"insertvalue {RESULT} undef, i64 {scope.result}, 0")
        code.end(f"ret {RESULT} {code.op(f'insertvalue {RESULT} {result}, i64 {DONE}, 1')}")
        code.label(other)
    code.end(f"ret {RESULT} {_REFUSED}")
    return code.text(f"define internal {RESULT} {EMULATE}(ptr nonnull %s, i64 %word, i64 %source) #1")
