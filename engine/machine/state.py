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
_WORD, _BYTE = ctypes.c_uint64, ctypes.c_uint8


class HartState(ctypes.Structure):
    """One hart. Words are unsigned 64-bit; flags are bytes, 0 or 1.

    x_words, f_words: the integer and floating-point registers; Python reads them through `Hart.x`, `Hart.f`.
    sink: where native code puts what an instruction writes to x0.
    steps, extra, unretired: see engine.machine.hart. limit: `steps` at which native code must come back.
    cycle_offset, instret_offset: what mcycle and minstret differ by, modulo 2**64.
    lines: bits of mip that hardware drives. virtual: V; hypervisor: is there an H extension? fault_gpa,
    fault_instruction, access_virtual: of the access being made, for the trap that it may become; nothing reads them
    later. One field besides for each word of STORAGE, by its name.
    memory_at: the MemoryState. tlb_at, ops, page_pc: the present context, code page and its virtual address (see
    engine.machine.native.layout).
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
        ("cycle_offset", _WORD),
        ("instret_offset", _WORD),
        ("reservation", _WORD),
        ("lines", _WORD),
        ("virtual", _WORD),
        ("hypervisor", _WORD),
        ("fault_gpa", _WORD),
        ("fault_instruction", _WORD),
        ("access_virtual", _WORD),
        *((name, _WORD) for name in STORAGE),
        ("memory_at", _WORD),
        ("tlb_at", _WORD),
        ("ops", _WORD),
        ("page_pc", _WORD),
        ("waiting", _BYTE),
        ("stopped", _BYTE),
        ("leave", _BYTE),
    )

    pc: int
    privilege: int
    steps: int
    extra: int
    limit: int
    unretired: int
    next_event: int
    cycle_offset: int
    instret_offset: int
    reservation: int
    lines: int
    virtual: int
    hypervisor: int
    fault_gpa: int
    fault_instruction: int
    access_virtual: int
    memory_at: int
    tlb_at: int
    ops: int
    page_pc: int
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

    flags, dirty: one byte for each page.
    """

    _fields_ = (
        ("ram_at", _WORD),
        ("base", _WORD),
        ("size", _WORD),
        ("flags_at", _WORD),
        ("dirty_at", _WORD),
    )

    __hash__ = object.__hash__

    ram_at: int
    base: int
    size: int
    flags_at: int
    dirty_at: int
