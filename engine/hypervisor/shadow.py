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
import mmap
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from engine.hypervisor.chains import Chains
from engine.hypervisor.frames import Frames
from engine.hypervisor.vm import FIRST_PAGE, GuestRam, VCpu, VirtualHart
from engine.isa.csrs import Status
from engine.machine import mmu
from engine.machine.hart import Hart
from engine.machine.mappings import MAX_LEAVES, MAX_SPACES, RELEASE_AFTER, SPACE_WORDS, ShadowState
from engine.machine.memory import PAGE
from engine.machine.native import exits
from engine.machine.native.procedures import DONE
from engine.machine.native.runtime import Interpreter

#: (satp or 0 without paging, virtual privilege, SUM and MXR)
SpaceKey = tuple[int, int, int]
_USER_LEAF = exits.SHADOW_LEAF
_KERNEL_LEAF = exits.SHADOW_LEAF & ~mmu.U
#: The level in a row of `table_pages`; the rest is a virtual address.
_LEVEL = exits.LEVEL_BITS


class ShadowTables(ShadowState):
    """All shadow spaces of one VM, on the memory map of its `ram`.

    Guest pages and frames are numbers: guest physical address >> 12, host frame from the start of host RAM.

    Native code fills leaves and drops them by the same words (engine.machine.native.exits). In `leaves` and
    `table_pages`, chains for each guest page, a space is the number that it has in `_numbers`.

    filled, dropped: leaves made, and leaves dropped because a guest's entry changed. remembered: bounds `leaves`, which
    also keeps leaves that were dropped, and so `table_pages`, because a fill adds one row there for each level.
    """

    def __init__(self, frames: Frames, ram: GuestRam) -> None:
        self.frames = frames
        self.memory = frames.memory
        self.ram = ram
        self.roots: dict[SpaceKey, int] = {}
        self.tables: dict[SpaceKey, list[int]] = {}  # frames of a space's lower tables
        self._numbers: dict[SpaceKey, int] = {}
        self._keys: dict[int, SpaceKey] = {}
        self.leaves = Chains(ram.pages, MAX_LEAVES)  # (space, virtual page) that map a guest page
        self.table_pages = Chains(ram.pages, mmu.LEVELS * MAX_LEAVES)  # see `_use`
        self.foreign: set[int] = set()  # tables below a space that are not the guest's, and left alone
        self._linked: dict[SpaceKey, tuple[int, int]] = {}  # where a space is known to use one, and which
        #: May the guest store to this page without the VMM's help? Where it is not the default, native code fills nothing.
        self.writable: Callable[[int], bool] = ram.writable
        #: The guest's tables may say something else of [address, address + the span of an entry of `level`).
        self.changed: Callable[[SpaceKey, int, int], None] = _nobody
        stores, spaces = mmap.mmap(-1, ram.pages), mmap.mmap(-1, 8 * SPACE_WORDS * MAX_SPACES)
        self._stores = memoryview(stores)  # into each table page since the last walk through it
        self._spaces = memoryview(spaces).cast("Q")
        super().__init__(
            ctypes.addressof(ctypes.c_char.from_buffer(spaces)), ctypes.addressof(self.leaves),
            ctypes.addressof(self.table_pages), ctypes.addressof(ctypes.c_char.from_buffer(stores)),
        )  # fmt: skip
        frames.reclaim.append(self.drop_all)
        ram.protected = self.protect

    def serve(self, vcpus: Sequence[VCpu]) -> None:
        """These are the VM's vCPUs: native code finds the tables by them."""
        self._any = vcpus[0].virtual.address
        for vcpu in vcpus:
            vcpu.virtual.shadow_at = ctypes.addressof(self)

    def close(self) -> None:
        """The VM is gone."""
        self.drop_all()
        self.frames.reclaim.remove(self.drop_all)

    # -- spaces --------------------------------------------------------------------------------------
    @staticmethod
    def key(virtual: Hart) -> SpaceKey:
        """The space that holds for a vCPU's present state. -1: every access must exit (MPRV splits loads from
        fetches)."""
        return key_in(virtual.privilege, virtual.mstatus & DECIDES, virtual.satp)

    def satp(self, key: SpaceKey) -> int:
        """The host satp value that selects a space, made if it is new."""
        root = self.roots.get(key)
        if root is None:
            if len(self.roots) >= MAX_SPACES:
                self.drop_space(next(iter(self.roots)))
            root = self.roots[key] = self.frames.take()
            self.tables[key] = []
            self._number(key)
        return _host_satp(root)

    def _number(self, key: SpaceKey) -> None:
        """Give a space its number, and tell native code of it."""
        number = min(set(range(1, MAX_SPACES + 1)) - self._keys.keys())
        self._numbers[key], self._keys[number] = number, key
        satp, privilege, bits = key
        space = exits.SPLIT if privilege < 0 else privilege | bits
        self._set_row(number, satp, space, _host_satp(self.roots[key]))

    def _set_row(self, number: int, *words: int) -> None:
        for index, word in enumerate(words, SPACE_WORDS * (number - 1)):
            self._spaces[index] = word

    def drop_space(self, key: SpaceKey) -> None:
        """Forget one space and give its frames back."""
        self.memory.flush()
        for frame in (self.roots.pop(key), *self.tables.pop(key)):
            self.frames.give_back_own(frame)
        self._linked.pop(key, None)
        self.changed(key, 0, mmu.LEVELS)
        number = self._numbers.pop(key)
        del self._keys[number]
        self._set_row(number, 0, 0, 0)
        self.leaves.forget_space(number)
        self.table_pages.forget_space(number)

    def drop_all(self) -> None:
        """Shadow tables are a cache: the next faults fill it again."""
        for key in list(self.roots):
            self.drop_space(key)
        self.remembered = 0

    # -- leaves --------------------------------------------------------------------------------------
    def _entry_offset(self, key: SpaceKey, address: int, make: bool, of_level: int = 0) -> int | None:
        """Offset in host RAM of the entry for a virtual address, in the table of leaves or one `of_level` above."""
        table, words = self.roots.get(key), self.memory.views[3]
        if table is None:
            return None
        for level in range(mmu.LEVELS - 1, of_level, -1):
            offset = table * PAGE + 8 * (address >> (12 + 9 * level) & 0x1FF)
            entry = words[offset >> 3]
            if entry & 1:
                table = (entry >> 10) - FIRST_PAGE
            elif make:
                frame = self.frames.take()
                if key not in self.roots:  # taking it emptied this very cache
                    self.frames.give_back_own(frame)
                    self.satp(key)
                    return self._entry_offset(key, address, make, of_level)
                self.tables[key].append(frame)
                self.memory.write(offset, 8, FIRST_PAGE + frame << 10 | mmu.V)
                table = frame
            else:
                return None
        return table * PAGE + 8 * (address >> (12 + 9 * of_level) & 0x1FF)

    def link(self, key: SpaceKey, address: int, table: int) -> None:
        """Let a space use a foreign table of leaves where `address` is. Raises OutOfFramesError."""
        if self._linked.get(key) == (address, table):
            return
        entry = FIRST_PAGE + table << 10 | mmu.V
        offset = self._entry_offset(key, address, make=True, of_level=1)
        assert offset is not None
        if self.memory.read(offset, 8) != entry:
            self.foreign.add(table)
            self.memory.write(offset, 8, entry)
        self._linked[key] = (address, table)

    def unlink(self, address: int, table: int) -> None:
        """No space uses this table any more."""
        self._linked.clear()
        for key in self.roots:
            offset = self._entry_offset(key, address, make=False, of_level=1)
            if offset is not None and self.memory.read(offset, 8) >> 10 == FIRST_PAGE + table:
                self.memory.write(offset, 8, 0)
        self.foreign.discard(table)

    def fill(
        self,
        key: SpaceKey,
        address: int,
        guest_page: int,
        frame: int,
        permissions: int,
        virtual: VirtualHart,
        user: bool = True,
    ) -> bool:
        """Map a virtual page to the frame behind a guest page; returns whether there was a leaf before. It rests on the
        latest `walk` of a virtual hart.

        `permissions`: R, W, X as the guest's tables grant them now. W is withheld from table pages
        and from shared ones. `user`: for user mode, which is the only one that a deprivileged guest has.
        """
        if self.remembered >= MAX_LEAVES:
            self.drop_all()
            self.satp(key)
        offset = self._entry_offset(key, address, make=True)
        assert offset is not None
        was_mapped = bool(self.memory.views[3][offset >> 3] & mmu.V)
        if not self.writable(guest_page):
            permissions &= ~mmu.W
        leaf = (FIRST_PAGE + frame) << 10 | (_USER_LEAF if user else _KERNEL_LEAF) | permissions
        number, walker = self._numbers[key], virtual.walker
        if walker is None or walker.put_leaf(
            virtual.address, offset, number, address, guest_page - FIRST_PAGE, leaf
        ) != DONE:
            self._put_leaf(key, offset, address, guest_page, leaf, virtual.trail)
        return was_mapped

    def _put_leaf(
        self, key: SpaceKey, offset: int, address: int, guest_page: int, leaf: int, tables: Sequence[int]
    ) -> None:
        self.rest_on(key, address, tables)
        if guest_page in self.table_pages:
            leaf &= ~mmu.W
        self.memory.write(offset, 8, leaf)
        self.leaves.add(guest_page, (self._numbers[key], address >> 12))
        self.filled += 1
        self.remembered += 1

    def rest_on(self, key: SpaceKey, address: int, tables: Sequence[int]) -> None:
        """Something is true as long as the guest's entries of this walk, through tables from the root on, are what
        they are."""
        for index, table in enumerate(tables):
            level = mmu.LEVELS - 1 - index
            self._use(table >> 12, key, level, self._first_address(address, level))

    @staticmethod
    def _first_address(address: int, level: int) -> int:
        """Virtual address that a table's entry 0 stands for, when the table at `level` translates
        `address`."""
        return address >> (21 + 9 * level) << (21 + 9 * level)

    def _use(self, guest_page: int, key: SpaceKey, level: int, first: int) -> None:
        """Leaves of a space rest on a guest page with entries of `level`, the first for the virtual address `first`."""
        if guest_page not in self.table_pages:
            for offset in self._leaf_offsets(guest_page):
                self.memory.write(offset, 8, self.memory.read(offset, 8) & ~mmu.W)
        row = (self._numbers[key], first | level)
        if row not in self.table_pages.of(guest_page):
            self.table_pages.add(guest_page, row)
        self._stores[guest_page - FIRST_PAGE] = 0

    def _leaf_offsets(self, guest_page: int) -> list[int]:
        """Offsets in host RAM of the leaf entries that may map a guest page."""
        found = (
            self._entry_offset(self._keys[number], virtual_page << 12, make=False)
            for number, virtual_page in self.leaves.of(guest_page)
        )
        return [offset for offset in found if offset is not None]

    def remapped(self, guest_page: int) -> None:
        """A guest page has another frame now, or may no longer be stored to."""
        frame = self.ram.frame(guest_page)
        for offset in self._leaf_offsets(guest_page):
            entry = self.memory.read(offset, 8)
            if not entry & mmu.V:
                continue
            if entry >> 10 != FIRST_PAGE + frame:
                self.memory.write(offset, 8, 0)
            elif not self.writable(guest_page):
                self.memory.write(offset, 8, entry & ~mmu.W)

    def unmap(self, guest_page: int) -> bool:
        """No leaf may lead to a guest page. Did any?"""
        led = False
        for offset in self._leaf_offsets(guest_page):
            if self.memory.read(offset, 8) & mmu.V:
                self.memory.write(offset, 8, 0)
                led = True
        return led

    def protect(self, guest_pages: Sequence[int]) -> None:
        """No page of these may be stored to: as `remapped` of each, in whole tables."""
        self.memory.flush()
        for number, pages in self.leaves.whats(guest_pages).items():
            for part in np.split(pages, np.flatnonzero(np.diff(pages >> np.uint64(9))) + 1):
                offset = self._entry_offset(self._keys[number], int(part[0]) << 12, make=False)
                if offset is not None:
                    self.memory.clear_bits(offset // PAGE, part & np.uint64(0x1FF), mmu.W)

    # -- kept true -----------------------------------------------------------------------------------
    def stored(self, address: int, length: int, lent: Interpreter | None) -> None:
        """Guest physical [address, address + length) was written by the VMM on the guest's behalf. lent: native code
        that may do it."""
        alone = self.changed is _nobody and not self.foreign and (address & PAGE - 1) + length <= PAGE
        if alone and (address >> 12 not in self.table_pages or (
            lent is not None and lent.table_stored(self._any, address, length) == DONE
        )):
            return
        for page in range(address >> 12, ((address + length - 1) >> 12) + 1):
            if page not in self.table_pages:
                continue
            self._stores[page - FIRST_PAGE] += 1
            if self._stores[page - FIRST_PAGE] >= RELEASE_AFTER:
                self._release(page)
                continue
            low, high = max(address, page << 12), min(address + length, (page + 1) << 12)
            for index in range((low & 0xFFF) >> 3, ((high - 1) & 0xFFF) // 8 + 1):
                for key, level, first in self._uses(page):
                    self._drop_range(key, first + (index << (12 + 9 * level)), level)
                    self.changed(key, first + (index << (12 + 9 * level)), level)

    def _uses(self, page: int) -> list[tuple[SpaceKey, int, int]]:
        """(space, level, first address) of what rests on a table page; see `_use`."""
        return [
            (self._keys[number], what & _LEVEL, what & ~_LEVEL) for number, what in self.table_pages.of(page)
        ]

    def _release(self, page: int) -> None:
        """No longer a table page: nothing may rest on it, and it may be written again after the next
        fault."""
        uses = self._uses(page)
        self.table_pages.forget(page)
        for key, level, first in uses:
            if level == mmu.LEVELS - 1:
                self._drop_children(key, self.roots.get(key), level)
            else:
                self._drop_range(key, first, level + 1)
            self.changed(key, first, level + 1)
        for offset in self._leaf_offsets(page):
            self.memory.write(offset, 8, 0)

    def _drop_range(self, key: SpaceKey, address: int, level: int) -> None:
        """Clear every leaf below what one guest entry of `level` translates."""
        table, words = self.roots.get(key), self.memory.views[3]
        for above in range(mmu.LEVELS - 1, level, -1):
            if table is None:
                return
            entry = words[table * PAGE + 8 * (address >> (12 + 9 * above) & 0x1FF) >> 3]
            table = (entry >> 10) - FIRST_PAGE if entry & mmu.V else None
        if table is None or table in self.foreign:
            return
        offset = table * PAGE + 8 * (address >> (12 + 9 * level) & 0x1FF)
        entry = words[offset >> 3]
        if not entry & mmu.V:
            return
        if level == 0:
            self.memory.write(offset, 8, 0)
            self.dropped += 1
        else:
            self._drop_children(key, (entry >> 10) - FIRST_PAGE, level - 1)

    def _drop_children(self, key: SpaceKey, table: int | None, level: int) -> None:
        if table is None or table in self.foreign:
            return
        first = table * PAGE >> 3
        for at, entry in enumerate(self.memory.views[3][first : first + 512].tolist(), first):
            if not entry & mmu.V:
                continue
            if level:
                self._drop_children(key, (entry >> 10) - FIRST_PAGE, level - 1)
            else:
                self.memory.write(8 * at, 8, 0)
                self.dropped += 1

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """The tables themselves are in host memory; this is what the VMM knows about them."""
        return {
            "roots": [[list(key), frame] for key, frame in self.roots.items()],
            "tables": [[list(key), list(frames)] for key, frames in self.tables.items()],
            "table_pages": [
                [page, sorted(([list(key), level, first] for key, level, first in uses)), self._stores[page - FIRST_PAGE]]
                for page, uses in self._by_page(self.table_pages, lambda what: (what & _LEVEL, what & ~_LEVEL))
            ],
            "leaves": [
                [page, sorted([list(key), virtual_page] for key, virtual_page in leaves)]
                for page, leaves in self._by_page(self.leaves, lambda what: (what,))
            ],
            "foreign": sorted(self.foreign),
            "counts": [self.filled, self.dropped, self.remembered],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.roots = {_key(key): frame for key, frame in state["roots"]}
        self.tables = {_key(key): list(frames) for key, frames in state["tables"]}
        self._numbers, self._keys, self._linked = {}, {}, {}
        for number in range(1, MAX_SPACES + 1):
            self._set_row(number, 0, 0, 0)
        for key in self.roots:
            self._number(key)
        for chains in (self.leaves, self.table_pages):
            chains.clear()
        for page, uses, stores in state["table_pages"]:
            for key, level, first in uses:
                self.table_pages.add(page, (self._numbers[_key(key)], first | level))
            self._stores[page - FIRST_PAGE] = stores
        for page, leaves in state["leaves"]:
            for key, at in leaves:
                self.leaves.add(page, (self._numbers[_key(key)], at))
        self.foreign = set(state["foreign"])
        self.filled, self.dropped, remembered = state["counts"]
        # What was saved has at least as many; what comes from elsewhere may say anything.
        self.remembered = max(remembered, self.leaves.count, -(-self.table_pages.count // mmu.LEVELS))

    def _by_page(
        self, chains: Chains, what: Callable[[int], tuple[int, ...]]
    ) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
        for page, rows in groupby(chains.all(), lambda row: row[0]):
            yield page, [(self._keys[number], *what(word)) for _, number, word in rows]


class _Situation(NamedTuple):
    """What decides which space a hart needs; as much of a hart as `exits.space` looks at."""

    privilege: int
    mstatus: int
    satp: int


#: Bits of mstatus that `key_in` looks at.
DECIDES = Status.MPRV | Status.MPP | Status.SUM | Status.MXR


@lru_cache(maxsize=4096)
def key_in(privilege: int, status: int, satp: int) -> SpaceKey:
    """The space of a situation; see ShadowTables.key."""
    space = exits.space(_Situation(privilege, status, satp))
    if exits.is_translated(space):
        return (satp, privilege, space & (Status.SUM | Status.MXR))
    return (0, -1 if space == exits.SPLIT else space, 0)


def _nobody(_key: SpaceKey, _address: int, _level: int) -> None:
    """Nothing rests on the tables but the leaves."""


def _host_satp(root: int) -> int:
    return (mmu.SV39 << 60) + FIRST_PAGE + root


def _key(parts: list[int]) -> SpaceKey:
    satp, privilege, bits = parts
    return (satp, privilege, bits)
