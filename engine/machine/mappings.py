"""How a hypervisor maps its guests' memory, as far as native code has to know: who has which frame, what is in the
shadow tables and what they rest on.

C structures, like those of engine.machine.state: the hypervisor's own objects *are* them, so that what one side does
the other sees. engine.machine.native.exits fills tables by them; what they mean is said where they are kept, in
engine.hypervisor. Guest pages are counted from the start of the guest's RAM, frames from that of the host's.
"""

from __future__ import annotations

import ctypes

_WORD = ctypes.c_uint64
#: In a word of RamState.map_at: the guest shares the frame, and has to own it before a store.
PAGE_SHARED = 1 << 63
NO_PAGE = (1 << 64) - 1
MAX_SPACES = 64
MAX_LEAVES = 1 << 16
#: Stores to a table page without a walk through it, after which it is none any more.
RELEASE_AFTER = 8
#: Words of a row: of a space, and of a chain.
SPACE_WORDS, ROW_WORDS = 3, 4


class FramesState(ctypes.Structure):
    """Who may have a host's frames (engine.hypervisor.frames): from `low` up to `high` they were never taken,
    `recycled` were given back, `promised` are promised to guests and not yet taken. reserved: so many frames are the
    hypervisor's, which takes none of the others then; 0: whatever is not promised."""

    _fields_ = (("low", _WORD), ("high", _WORD), ("recycled", _WORD), ("promised", _WORD), ("reserved", _WORD))

    low: int
    high: int
    recycled: int
    promised: int
    reserved: int


class RamState(ctypes.Structure):
    """Where the RAM of a VM is (engine.hypervisor.vm). map_at: a word for each of its `pages`: the frame plus 1 or,
    where it has none yet, 0, and PAGE_SHARED where the page is to be owned before a store. watched: the number of the
    page whose frame somebody has to be told of, or NO_PAGE. frames_at: the host's FramesState. away: how many pages without
    a frame are on another host, and must not begin as zeros. target, leaf, level, trail: of native code's latest walk
    through the guest's tables, where it led, the last entry, its level, and the tables' addresses by level."""

    _fields_ = (
        ("map_at", _WORD),
        ("pages", _WORD),
        ("watched", _WORD),
        ("frames_at", _WORD),
        ("away", _WORD),
        ("target", _WORD),
        ("leaf", _WORD),
        ("level", _WORD),
        ("trail", _WORD * 3),
    )

    map_at: int
    pages: int
    watched: int
    frames_at: int
    away: int
    target: int
    leaf: int
    level: int
    trail: ctypes.Array[ctypes.c_uint64]


class StageState(ctypes.Structure):
    """The lower tables of a VM's second stage (engine.hypervisor.second_stage): the frames of the `count` that there are,
    a word each, of at most `limit`."""

    _fields_ = (("count", _WORD), ("limit", _WORD), ("tables_at", _WORD))

    count: int
    limit: int
    tables_at: int


class ChainsState(ctypes.Structure):
    """A chain of rows for each page of a VM's RAM (engine.hypervisor.chains). heads_at: a word for each page, the
    number of its chain's first row; 0: none. rows_at: rows of four words, from row 1 on: space, what, page, the chain's
    next row. `count` of them were ever used; one that is no longer true has the space 0."""

    _fields_ = (("count", _WORD), ("heads_at", _WORD), ("rows_at", _WORD))

    count: int
    heads_at: int
    rows_at: int


class ShadowState(ctypes.Structure):
    """The shadow tables of a VM (engine.hypervisor.shadow). spaces_at: MAX_SPACES rows of three words: root, `space`,
    host satp; space number n has row n - 1. leaves, table_pages: chains whose `what` is a virtual page, and a virtual
    address with the level in its low bits. stores_at: a byte for each page."""

    _fields_ = (
        ("spaces_at", _WORD),
        ("leaves_at", _WORD),
        ("table_pages_at", _WORD),
        ("stores_at", _WORD),
        ("filled", _WORD),
        ("dropped", _WORD),
        ("remembered", _WORD),
    )

    spaces_at: int
    leaves_at: int
    table_pages_at: int
    stores_at: int
    filled: int
    dropped: int
    remembered: int
