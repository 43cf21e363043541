"""Shadow page tables: what the host's MMU really uses while a guest believes in its own tables.

    guest virtual ──(guest's table, never seen by the MMU)──> guest physical ──(VMM's map)──> host physical
    guest virtual ──────────────────(shadow table, in host memory)──────────────────────────> host physical

The guest runs in U mode whatever it believes, so every shadow leaf has U set, and a *space* (one shadow tree)
exists for each combination that changes what is permitted: satp, the virtual privilege, SUM and MXR. Leaves
are made on faults.

Kept true by write protection: a guest page that a walk went through is a *table page*; no shadow leaf lets
the guest write to it. A store to it exits, is emulated, and drops just the leaves that depended on the entry.
A page that takes RELEASE_AFTER stores without a walk between is no longer used as a table: all that depended
on it is dropped and it becomes writable again. So a shadow leaf never says more than the guest's tables say
at that moment, and sfence.vma has nothing left to drop.

A and D: the walk sets them in the guest's entry; a leaf is writable only once D is set.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.hypervisor.frames import Frames
from engine.isa.csrs import Status
from engine.machine import mmu
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE
from engine.machine.memory import PAGE
from engine.machine.mmu import Access
from engine.machine.native import exits

RELEASE_AFTER = 8
MAX_SPACES = 64
MAX_LEAVES = 1 << 16
_LEAF = mmu.V | mmu.U | mmu.A | mmu.D

#: (satp or 0 without paging, virtual privilege, SUM and MXR)
SpaceKey = tuple[int, int, int]
#: A dependency of leaves on a table page: (space, level of its entries, virtual address of its first entry)
Use = tuple[SpaceKey, int, int]


@dataclass
class TablePage:
    """A guest page known to hold page-table entries."""

    uses: set[Use] = field(default_factory=set)
    stores: int = 0  # since the last walk through it


class ShadowTables:
    """All shadow spaces of one VM. `frame_of(guest page) -> host page` gives the VM's memory map,
    `writable(guest page)` whether the guest may store there without the VMM's help.

    Guest pages and frames are numbers: guest physical address >> 12, host frame from the start of host RAM.
    """

    def __init__(
        self, frames: Frames, frame_of: Callable[[int], int], writable: Callable[[int], bool]
    ) -> None:
        self.frames = frames
        self.memory = frames.memory
        self.frame_of = frame_of
        self.writable = writable
        self.roots: dict[SpaceKey, int] = {}
        self.tables: dict[SpaceKey, list[int]] = {}  # frames of a space's lower tables
        self.table_pages: dict[int, TablePage] = {}
        self.leaves: dict[
            int, set[tuple[SpaceKey, int]]
        ] = {}  # guest page -> (space, virtual page) that map it
        self.filled = 0
        self.dropped = 0
        self._remembered = 0  # bounds `leaves`, which also keeps leaves that were dropped
        # What native code knows of `roots`: see engine.machine.native.exits.
        self.spaces = (ctypes.c_uint64 * (1 + exits.SPACE_WORDS * MAX_SPACES))()
        frames.reclaim.append(self.drop_all)

    def close(self) -> None:
        """The VM is gone."""
        self.drop_all()
        self.frames.reclaim.remove(self.drop_all)

    # -- spaces --------------------------------------------------------------------------------------
    @staticmethod
    def key(virtual: Hart) -> SpaceKey:
        """The space that holds for a vCPU's present state. -1: every access must exit (MPRV splits loads from
        fetches)."""
        space = exits.space(virtual)
        if exits.is_translated(space):
            return (virtual.satp, virtual.privilege, space & (Status.SUM | Status.MXR))
        return (0, -1 if space == exits.SPLIT else space, 0)

    def satp(self, key: SpaceKey) -> int:
        """The host satp value that selects a space, made if it is new."""
        root = self.roots.get(key)
        if root is None:
            if len(self.roots) >= MAX_SPACES:
                self.drop_space(next(iter(self.roots)))
            root = self.roots[key] = self.frames.take()
            self.tables[key] = []
            self._tell_native_code()
        return _host_satp(root)

    def _tell_native_code(self) -> None:
        words: list[ctypes.c_uint64 | int] = [len(self.roots)]
        for (satp, privilege, bits), root in self.roots.items():
            words += [satp, exits.SPLIT if privilege < 0 else privilege | bits, _host_satp(root)]
        self.spaces[: len(words)] = words

    def drop_space(self, key: SpaceKey) -> None:
        """Forget one space and give its frames back."""
        self.memory.flush()
        for frame in (self.roots.pop(key), *self.tables.pop(key)):
            self.frames.give_back(frame)
        self._tell_native_code()
        for page in list(self.leaves):
            self.leaves[page] = {leaf for leaf in self.leaves[page] if leaf[0] != key}
        for page, table in list(self.table_pages.items()):
            table.uses = {use for use in table.uses if use[0] != key}
            if not table.uses:
                del self.table_pages[page]

    def drop_all(self) -> None:
        """Shadow tables are a cache: the next faults fill it again."""
        for key in list(self.roots):
            self.drop_space(key)
        self.leaves.clear()
        self._remembered = 0

    # -- leaves --------------------------------------------------------------------------------------
    def _entry_offset(self, key: SpaceKey, address: int, make: bool) -> int | None:
        """Offset in host RAM of the leaf entry for a virtual address."""
        table = self.roots.get(key)
        if table is None:
            return None
        for level in (2, 1):
            offset = table * PAGE + 8 * (address >> (12 + 9 * level) & 0x1FF)
            entry = self.memory.read(offset, 8)
            if entry & mmu.V:
                table = (entry >> 10) - (RAM_BASE >> 12)
            elif make:
                frame = self.frames.take()
                if key not in self.roots:  # taking it emptied this very cache
                    self.frames.give_back(frame)
                    self.satp(key)
                    return self._entry_offset(key, address, make)
                self.tables[key].append(frame)
                self.memory.write(offset, 8, ((RAM_BASE >> 12) + frame) << 10 | mmu.V)
                table = frame
            else:
                return None
        return table * PAGE + 8 * (address >> 12 & 0x1FF)

    def fill(
        self,
        key: SpaceKey,
        address: int,
        guest_page: int,
        permissions: int,
        trail: list[mmu.Step],
        user: bool = True,
    ) -> int:
        """Map a virtual page to the frame behind a guest page; returns the frame. `trail`: the guest walk it
        rests on.

        `permissions`: R, W, X as the guest's tables grant them now. W is withheld from table pages
        and from shared ones. `user`: for user mode, which is the only one that a deprivileged guest has.
        """
        if self._remembered >= MAX_LEAVES:
            self.drop_all()
            self.satp(key)
        frame = self.frame_of(guest_page)
        offset = self._entry_offset(key, address, make=True)
        assert offset is not None
        for step in trail:
            self._use(step.table >> 12, (key, step.level, self._first_address(address, step.level)))
        if guest_page in self.table_pages or not self.writable(guest_page):
            permissions &= ~mmu.W
        leaf = _LEAF if user else _LEAF & ~mmu.U
        self.memory.write(offset, 8, ((RAM_BASE >> 12) + frame) << 10 | leaf | permissions)
        self.leaves.setdefault(guest_page, set()).add((key, address >> 12))
        self.filled += 1
        self._remembered += 1
        return frame

    @staticmethod
    def _first_address(address: int, level: int) -> int:
        """Virtual address that a table's entry 0 stands for, when the table at `level` translates
        `address`."""
        return address >> (21 + 9 * level) << (21 + 9 * level)

    def mapped(self, key: SpaceKey, address: int) -> bool:
        offset = self._entry_offset(key, address, make=False)
        return offset is not None and bool(self.memory.read(offset, 8) & mmu.V)

    def _use(self, guest_page: int, use: Use) -> None:
        table = self.table_pages.get(guest_page)
        if table is None:
            table = self.table_pages[guest_page] = TablePage()
            for key, virtual_page in self.leaves.get(guest_page, ()):
                offset = self._entry_offset(key, virtual_page << 12, make=False)
                if offset is not None:
                    self.memory.write(offset, 8, self.memory.read(offset, 8) & ~mmu.W)
        table.uses.add(use)
        table.stores = 0

    def remapped(self, guest_page: int) -> None:
        """A guest page has another frame now, or may no longer be stored to."""
        frame = self.frame_of(guest_page)
        for key, virtual_page in self.leaves.get(guest_page, ()):
            offset = self._entry_offset(key, virtual_page << 12, make=False)
            entry = 0 if offset is None else self.memory.read(offset, 8)
            if offset is None or not entry & mmu.V:
                continue
            if entry >> 10 != (RAM_BASE >> 12) + frame:
                self.memory.write(offset, 8, 0)
            elif not self.writable(guest_page):
                self.memory.write(offset, 8, entry & ~mmu.W)

    # -- kept true -----------------------------------------------------------------------------------
    def stored(self, address: int, length: int) -> None:
        """Guest physical [address, address + length) was written by the VMM on the guest's behalf."""
        for page in range(address >> 12, ((address + length - 1) >> 12) + 1):
            table = self.table_pages.get(page)
            if table is None:
                continue
            table.stores += 1
            if table.stores >= RELEASE_AFTER:
                self._release(page)
                continue
            low, high = max(address, page << 12), min(address + length, (page + 1) << 12)
            for index in range((low & 0xFFF) >> 3, ((high - 1) & 0xFFF) // 8 + 1):
                for key, level, first in list(table.uses):
                    self._drop_range(key, first + (index << (12 + 9 * level)), level)

    def _release(self, page: int) -> None:
        """No longer a table page: nothing may rest on it, and it may be written again after the next
        fault."""
        for key, level, first in self.table_pages.pop(page).uses:
            if level == mmu.LEVELS - 1:
                self._drop_children(key, self.roots.get(key), level)
            else:
                self._drop_range(key, first, level + 1)
        for key, virtual_page in self.leaves.get(page, ()):
            offset = self._entry_offset(key, virtual_page << 12, make=False)
            if offset is not None:
                self.memory.write(offset, 8, 0)

    def _drop_range(self, key: SpaceKey, address: int, level: int) -> None:
        """Clear every leaf below what one guest entry of `level` translates."""
        table = self.roots.get(key)
        for above in range(mmu.LEVELS - 1, level, -1):
            if table is None:
                return
            entry = self.memory.read(table * PAGE + 8 * (address >> (12 + 9 * above) & 0x1FF), 8)
            table = (entry >> 10) - (RAM_BASE >> 12) if entry & mmu.V else None
        if table is None:
            return
        offset = table * PAGE + 8 * (address >> (12 + 9 * level) & 0x1FF)
        entry = self.memory.read(offset, 8)
        if not entry & mmu.V:
            return
        if level == 0:
            self.memory.write(offset, 8, 0)
            self.dropped += 1
        else:
            self._drop_children(key, (entry >> 10) - (RAM_BASE >> 12), level - 1)

    def _drop_children(self, key: SpaceKey, table: int | None, level: int) -> None:
        if table is None:
            return
        for index in range(512):
            offset = table * PAGE + 8 * index
            entry = self.memory.read(offset, 8)
            if not entry & mmu.V:
                continue
            if level:
                self._drop_children(key, (entry >> 10) - (RAM_BASE >> 12), level - 1)
            else:
                self.memory.write(offset, 8, 0)
                self.dropped += 1

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """The tables themselves are in host memory; this is what the VMM knows about them."""
        return {
            "roots": [[list(key), frame] for key, frame in self.roots.items()],
            "tables": [[list(key), list(frames)] for key, frames in self.tables.items()],
            "table_pages": [
                [page, sorted([list(key), level, first] for key, level, first in table.uses), table.stores]
                for page, table in sorted(self.table_pages.items())
            ],
            "leaves": [
                [page, sorted([list(key), virtual_page] for key, virtual_page in leaves)]
                for page, leaves in sorted(self.leaves.items())
            ],
            "counts": [self.filled, self.dropped, self._remembered],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.roots = {_key(key): frame for key, frame in state["roots"]}
        self.tables = {_key(key): list(frames) for key, frames in state["tables"]}
        self.table_pages = {
            page: TablePage({(_key(key), level, first) for key, level, first in uses}, stores)
            for page, uses, stores in state["table_pages"]
        }
        self.leaves = {page: {(_key(key), at) for key, at in leaves} for page, leaves in state["leaves"]}
        self.filled, self.dropped, self._remembered = state["counts"]
        self._tell_native_code()


def _host_satp(root: int) -> int:
    return mmu.SV39 << 60 | (RAM_BASE >> 12) + root


def _key(parts: list[int]) -> SpaceKey:
    satp, privilege, bits = parts
    return (satp, privilege, bits)


def permissions(entry: int, virtual: Hart) -> int:
    """R, W, X of a guest leaf as they hold for the vCPU's present privilege. W only once D is set."""
    privilege, status = virtual.privilege, virtual.mstatus
    granted = 0
    if mmu.permitted(entry, Access.LOAD, privilege, status):
        granted |= mmu.R
    if mmu.permitted(entry, Access.FETCH, privilege, status):
        granted |= mmu.X
    if entry & mmu.D and mmu.permitted(entry, Access.STORE, privilege, status):
        granted |= mmu.W
    return granted
