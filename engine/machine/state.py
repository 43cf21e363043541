"""The layout of a hart's state and of RAM's, shared by all execution tiers.

Both are C structures, so that native code works on the very words that Python reads and writes: a `Hart` *is*
a `HartState`, a `Memory` *is* a `MemoryState`, and nothing is copied between tiers. A field that a guest's
instruction can change lives here and nowhere else.
"""

from __future__ import annotations

import ctypes

from engine.isa.csrs import STORAGE

MAX_HARTS = 64
#: No address: what `reservation` holds when there is none.
NO_RESERVATION = (1 << 64) - 1
#: Hot operations that one stretch of native execution can report; further ones wait for their next turn.
MAX_HOT = 8
NO_TIME = (1 << 64) - 1
#: A clock that is never reached.
NEVER = 1 << 62
#: `streak_at` before the first trap.
NO_STREAK = (1 << 64) - 1
_WORD, _BYTE = ctypes.c_uint64, ctypes.c_uint8
_WORDS = {1: _BYTE, 8: _WORD}


class HartState(ctypes.Structure):
    """One hart. Words are unsigned 64-bit; flags are bytes, 0 or 1.

    x_words, f_words: the integer and floating-point registers; Python reads them through `Hart.x`, `Hart.f`.
    sink: where native code puts what an instruction writes to x0.
    next_event, other_event: the clock at which Python has to be asked what is due, and what that would be without the
    stimecmp of a guest under trap-and-emulate, which native code may write.
    steps, extra, unretired: see engine.machine.hart. limit: `steps` at which native code must come back.
    cycle_offset, instret_offset: what mcycle and minstret differ by, modulo 2**64.
    lines: bits of mip that hardware drives. virtual: V; hypervisor: is there an H extension? silent: are some of its
    sensitive instructions silent in user mode (engine.isa.silent)? fault_gpa, fault_instruction, access_virtual: of the
    access being made, for the trap that it may become; nothing reads them later. One field besides for each word of
    STORAGE, by its name.
    memory_at: the MemoryState. contexts_at, context, previous_context, next_context, stale: the hart's contexts, the
    numbers of the present one, of the one before it and of the one to give up next, and a bit for each that has to be
    emptied. choices: how often something decided anew which context is whose. chosen_status, chosen_satp, chosen_vsatp,
    chosen_hgatp: the registers by which (see engine.machine.native.access.refresh). tlb_at, ops, page_pc: the present
    context, code page and its virtual address (see engine.machine.native.layout).
    stops_at, stop_count: the pages in which native code has to stop, as rows (see engine.machine.native.runtime.Stops).
    hot, hot_count: operations that were reached often, as pairs of code page and byte offset, until the JIT takes them.
    record_at, record_count, record_limit: records of traps that native code took, until somebody fetches them; with a
    limit of 0 it takes none. record_ids: host, guest and vCPU as a record has them. position_base: what `steps` has to
    be added to for a record's position. reported: `retired` at the latest record. streak_*: traps without a retired
    instruction between them (see engine.machine.native.traps).
    last_step, until, horizon: what `limit` comes from: the step, and the clock, at which a run ends, and the clock at
    which native code must come back.
    virtual_at: of a hart that carries a guest under trap-and-emulate, the address of the virtual hart; else 0.
    exit_route, fill_route: the paths of its exits, and of those that map memory, and what they cost (see
    engine.hypervisor.costs.Routes.packed). instructions_base, shadow_at: of that virtual hart, what the vCPU's
    instructions are ahead of the host hart's `retired`, and its ShadowState (see engine.machine.mappings).
    guest_ram_at: of a virtual hart, and of a hart that carries a guest under hardware assist, the guest's RamState; else
    0. stage_at: of the latter, the StageState.
    exit_time, exit_position, exit_executed: of a virtual hart, what the record of its exit says, once that is charged.
    time_started, time_offset: mtime is the clock since time_started in ticks, plus time_offset; NO_TIME: ask Python.
    trap_cause, trap_value: of a trap that a native procedure raises. physical: where an address led that Python asked
    native code to translate.
    walks, walk_references: how often translation asked the page tables, and the entries that it read there. They depend
    on what the TLB holds, so on the tier and on when the hart was last put into a state: no part of one, and in no trace.
    """

    _fields_ = (
        ("x_words", _WORD * 32),
        ("sink", _WORD),
        ("f_words", _WORD * 32),
        ("pc", _WORD),
        ("privilege", _WORD),
        ("steps", _WORD),
        ("extra", _WORD),
        ("limit", _WORD),
        ("unretired", _WORD),
        ("next_event", _WORD),
        ("other_event", _WORD),
        ("cycle_offset", _WORD),
        ("instret_offset", _WORD),
        ("reservation", _WORD),
        ("lines", _WORD),
        ("virtual", _WORD),
        ("hypervisor", _WORD),
        ("silent", _WORD),
        ("fault_gpa", _WORD),
        ("fault_instruction", _WORD),
        ("access_virtual", _WORD),
        *((name, _WORD) for name in STORAGE),
        ("memory_at", _WORD),
        ("contexts_at", _WORD),
        ("context", _WORD),
        ("previous_context", _WORD),
        ("next_context", _WORD),
        ("stale", _WORD),
        ("choices", _WORD),
        ("chosen_status", _WORD),
        ("chosen_satp", _WORD),
        ("chosen_vsatp", _WORD),
        ("chosen_hgatp", _WORD),
        ("tlb_at", _WORD),
        ("ops", _WORD),
        ("record_at", _WORD),
        ("record_count", _WORD),
        ("record_limit", _WORD),
        ("record_ids", _WORD),
        ("position_base", _WORD),
        ("reported", _WORD),
        ("streak_length", _WORD),
        ("streak_at", _WORD),
        ("streak_cause", _WORD),
        ("streak_pc", _WORD),
        ("last_step", _WORD),
        ("until", _WORD),
        ("horizon", _WORD),
        ("virtual_at", _WORD),
        ("exit_route", _WORD),
        ("fill_route", _WORD),
        ("instructions_base", _WORD),
        ("shadow_at", _WORD),
        ("guest_ram_at", _WORD),
        ("stage_at", _WORD),
        ("time_started", _WORD),
        ("time_offset", _WORD),
        ("trap_cause", _WORD),
        ("trap_value", _WORD),
        ("physical", _WORD),
        ("page_pc", _WORD),
        ("exit_time", _WORD),
        ("exit_position", _WORD),
        ("exit_executed", _WORD),
        ("walks", _WORD),
        ("walk_references", _WORD),
        ("stops_at", _WORD),
        ("stop_count", _WORD),
        ("hot", _WORD * (2 * MAX_HOT)),
        ("hot_count", _WORD),
        ("waiting", _BYTE),
        ("stopped", _BYTE),
        ("leave", _BYTE),
        ("monitored", _BYTE),
    )

    @staticmethod
    def peek(address: int, size: int) -> int:
        """For procedures that Python executes itself (engine.machine.native.procedures): a word of so many bytes."""
        return _WORDS[size].from_address(address).value

    @staticmethod
    def poke(address: int, size: int, value: int) -> None:
        """Write one, modulo what it can hold."""
        _WORDS[size].from_address(address).value = value

    pc: int
    privilege: int
    steps: int
    extra: int
    limit: int
    unretired: int
    next_event: int
    other_event: int
    cycle_offset: int
    instret_offset: int
    reservation: int
    lines: int
    virtual: int
    hypervisor: int
    silent: int
    fault_gpa: int
    fault_instruction: int
    access_virtual: int
    memory_at: int
    contexts_at: int
    context: int
    previous_context: int
    next_context: int
    stale: int
    choices: int
    chosen_status: int
    chosen_satp: int
    chosen_vsatp: int
    chosen_hgatp: int
    tlb_at: int
    ops: int
    page_pc: int
    exit_time: int
    exit_position: int
    exit_executed: int
    walks: int
    walk_references: int
    stops_at: int
    stop_count: int
    hot: ctypes.Array[ctypes.c_uint64]
    hot_count: int
    record_at: int
    record_count: int
    record_limit: int
    record_ids: int
    position_base: int
    reported: int
    streak_length: int
    streak_at: int
    streak_cause: int
    streak_pc: int
    last_step: int
    until: int
    horizon: int
    virtual_at: int
    exit_route: int
    fill_route: int
    instructions_base: int
    shadow_at: int
    guest_ram_at: int
    stage_at: int
    time_started: int
    time_offset: int
    trap_cause: int
    trap_value: int
    physical: int
    monitored: int
    waiting: int
    stopped: int
    leave: int
    mstatus: int
    mie: int
    mip: int
    mideleg: int
    medeleg: int
    mtvec: int
    mepc: int
    mcause: int
    mtval: int
    mcounteren: int
    stvec: int
    sepc: int
    scause: int
    stval: int
    scounteren: int
    satp: int
    fcsr: int
    menvcfg: int
    stimecmp: int
    mtval2: int
    mtinst: int
    hstatus: int
    hedeleg: int
    hideleg: int
    hcounteren: int
    henvcfg: int
    htimedelta: int
    htval: int
    htinst: int
    hgatp: int
    vsstatus: int
    vstvec: int
    vsscratch: int
    vsepc: int
    vscause: int
    vstval: int
    vstimecmp: int
    vsatp: int


class MemoryState(ctypes.Structure):
    """RAM, by address: `ram` is its first byte in this process, `base` and `size` are physical.

    flags, dirty: one byte for each page. code: a word for each page, the address of its decoded page or 0.
    tables: numbers of the pages flagged as page tables, 32 bits each, `table_count` of them. harts: the states of
    the `hart_count` harts that execute here natively.
    """

    _fields_ = (
        ("ram_at", _WORD),
        ("base", _WORD),
        ("size", _WORD),
        ("flags_at", _WORD),
        ("dirty_at", _WORD),
        ("code_at", _WORD),
        ("tables_at", _WORD),
        ("table_count", _WORD),
        ("hart_count", _WORD),
        ("harts_at", _WORD * MAX_HARTS),
    )

    __hash__ = object.__hash__

    ram_at: int
    base: int
    size: int
    flags_at: int
    dirty_at: int
    code_at: int
    tables_at: int
    table_count: int
    hart_count: int
