"""Direct page tables: what the hart's MMU uses while a paravirtual guest keeps its tables by hypercalls.

    guest's table, a page of the guest's memory      entries name guest physical pages; read-only to the guest
      │ checked and applied entry by entry, at once
      ├─ kernel's view, a host frame                 the same entries with host frames
      └─ user's view, a host frame                   those with U alone

Xen's way (Barham et al., Xen and the Art of Virtualization, SOSP 2003, section 3.3.3) is to let the guest see machine
addresses and use its very tables. Here the guest's tables keep guest physical addresses, because a guest that moves to
another host then needs no translation of its tables, and an entry that names another guest's frame cannot even be
written. What stays is what matters: the hypervisor looks at an entry when it is written and never later, and there is
no fault to find out what the guest has already said. Two views stand in for the two privilege levels that are left to a
kernel in U mode, as on x86-64.

A page that a pinned root leads to is a *table* of one level for as long as something leads to it; `references` counts.
Leaves are 4 KiB pages, in place at once. A megapage is the kernel's, and its 512 pages come when they are first
touched, so that a kernel that maps all of its memory does not take it. The same holds for the start space, which a guest
has before its first tables: its memory at its own addresses.

In the hart's entries the software bits say what the guest granted: _GRANTS_W when W may have to be withheld (a table,
a page shared with a clone), _OF_USER for an entry with U.

Frames are numbers from the start of host RAM, pages guest physical >> 12. What the hypervisor takes for itself comes
from what is not promised to guests, at most 2 * MAX_TABLES frames and one for each megapage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.hypervisor.frames import OutOfFramesError
from engine.hypervisor.vm import GuestRam
from engine.machine import mmu, sbi
from engine.machine.loader import RAM_BASE
from engine.machine.memory import PAGE
from engine.machine.mmu import LEVELS, A, D, R, U, V, W, X

MAX_TABLES = 256
ENTRIES = 512
_GRANTS_W, _OF_USER = 1 << 8, 1 << 9
_LEAF = V | U | A | D
_RIGHTS = R | W | X
_BASE = RAM_BASE >> 12


class RefusedError(Exception):
    """The hypervisor does not do what the guest asked for; `error` is its answer."""

    def __init__(self, error: sbi.Error) -> None:
        super().__init__(error.name)
        self.error = error


@dataclass(slots=True)
class Table:
    """A page of the guest in use as a table: its level and the frames of its two views."""

    level: int
    kernel: int
    user: int
    references: int


class DirectTables:
    """The tables of one VM. `reserved(page)`: can it not be a table?"""

    def __init__(self, ram: GuestRam, reserved: Callable[[int], bool]) -> None:
        self.ram = ram
        self.frames = ram.frames
        self.memory = ram.memory
        self.reserved = reserved
        self.tables: dict[int, Table] = {}
        self.megapages: dict[tuple[int, int], int] = {}  # (table, index) -> the frame with its 512 entries
        self.start: list[int] = []  # frames of the start space, the root first
        self._leaves: dict[int, set[int]] = {}  # page -> where in host RAM entries lead to its frame

    # -- what the guest asks for -----------------------------------------------------------------------
    def pin(self, page: int) -> None:
        """Check a tree and use it. Raises RefusedError, and then nothing has changed."""
        self._adopt(page, LEVELS - 1, forgiving=False)

    def unpin(self, page: int) -> None:
        self._release(page)

    def set_entry(self, page: int, index: int, value: int) -> None:
        """Write an entry of a table. Raises RefusedError, and then nothing has changed."""
        table = self.tables[page]
        self._accept(table, value, forgiving=False)
        self._unlink(page, table, index)
        self.memory.write(self.ram.store_offset(page << 12 | index << 3), 8, value)
        self._link(table, index, value)

    def rebuild(self, pins: list[int]) -> list[int]:
        """Make all of it anew from the guest's memory, without what cannot be accepted; returns the roots that are.
        Raises OutOfFramesError."""
        self.drop()
        kept = []
        for page in pins:
            try:
                self._adopt(page, LEVELS - 1, forgiving=True)
                kept.append(page)
            except RefusedError as refusal:
                if refusal.error == sbi.Error.FAILED:
                    raise OutOfFramesError from None
        return kept

    def drop(self) -> None:
        """Give every frame back."""
        self.memory.flush()
        for table in self.tables.values():
            self.frames.give_back_own(table.kernel)
            self.frames.give_back_own(table.user)
        for frame in (*self.megapages.values(), *self.start):
            self.frames.give_back_own(frame)
        self.tables, self.megapages, self.start, self._leaves = {}, {}, [], {}

    def drop_start(self) -> None:
        """The guest has tables of its own now."""
        if not self.start:
            return
        self.memory.flush()
        gone = set(self.start)
        kept = {page: {at for at in offsets if at // PAGE not in gone} for page, offsets in self._leaves.items()}
        self._leaves = {page: offsets for page, offsets in kept.items() if offsets}
        for frame in self.start:
            self.frames.give_back_own(frame)
        self.start = []

    # -- tables ----------------------------------------------------------------------------------------
    def _adopt(self, page: int, level: int, forgiving: bool) -> None:
        """One more thing leads to this page as a table of this level. forgiving: leave out what is refused."""
        table = self.tables.get(page)
        if table is not None:
            if table.level != level:
                raise RefusedError(sbi.Error.DENIED)
            table.references += 1
            return
        if not self.ram.holds(page << 12, PAGE):
            raise RefusedError(sbi.Error.INVALID_ADDRESS)
        if self.reserved(page) or any(
            self._entry(at) & (_GRANTS_W | _OF_USER) == _GRANTS_W | _OF_USER for at in self._leaves.get(page, ())
        ):
            raise RefusedError(sbi.Error.DENIED)
        table = self.tables[page] = self._new_table(level)
        self.refresh(page)
        content = np.frombuffer(self.ram.read(page << 12, PAGE), "<u8")
        for index in np.flatnonzero(content & V).tolist():
            value = int(content[index])
            try:
                self._accept(table, value, forgiving)
            except RefusedError as refusal:
                if forgiving and refusal.error != sbi.Error.FAILED:
                    continue
                self._release(page)
                raise
            self._link(table, index, value)

    def _new_table(self, level: int) -> Table:
        if len(self.tables) >= MAX_TABLES:
            raise RefusedError(sbi.Error.FAILED)
        try:
            kernel = self.frames.take()
        except OutOfFramesError:
            raise RefusedError(sbi.Error.FAILED) from None
        try:
            return Table(level, kernel, self.frames.take(), 1)
        except OutOfFramesError:
            self.frames.give_back_own(kernel)
            raise RefusedError(sbi.Error.FAILED) from None

    def _release(self, page: int) -> None:
        """One thing less leads to this table; if it was the last, the page is ordinary memory again."""
        table = self.tables[page]
        table.references -= 1
        if table.references:
            return
        views = np.frombuffer(self.memory.read_bytes(table.kernel * PAGE, PAGE), "<u8")
        for index in np.flatnonzero(views).tolist():
            self._unlink(page, table, index)
        del self.tables[page]
        self.memory.flush()
        self.frames.give_back_own(table.kernel)
        self.frames.give_back_own(table.user)
        self.refresh(page)

    # -- entries ---------------------------------------------------------------------------------------
    def _accept(self, table: Table, value: int, forgiving: bool) -> None:
        """Raise RefusedError unless the value may stand in the table. A table that it leads to is adopted."""
        if not value & V:
            return
        page = value >> 10 & mmu.ROOT_PAGES
        if value >> 54:
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if not value & _RIGHTS:
            if table.level == 0 or value & (A | D | U):
                raise RefusedError(sbi.Error.INVALID_PARAM)
            self._adopt(page, table.level - 1, forgiving)
            return
        if value & (R | W) == W or not value & A or (value & W and not value & D):
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if table.level and (table.level > 1 or value & U or page % ENTRIES):
            raise RefusedError(sbi.Error.INVALID_PARAM)
        if not self.ram.holds(page << 12, PAGE << 9 * table.level):
            raise RefusedError(sbi.Error.INVALID_ADDRESS)
        if value & U and value & W and page in self.tables:
            raise RefusedError(sbi.Error.DENIED)

    def _link(self, table: Table, index: int, value: int) -> None:
        """Put an accepted value into both views."""
        if not value & V:
            return
        page = value >> 10 & mmu.ROOT_PAGES
        kernel, user = table.kernel * PAGE + 8 * index, table.user * PAGE + 8 * index
        if not value & _RIGHTS:
            below = self.tables[page]
            self.memory.write(kernel, 8, (_BASE + below.kernel) << 10 | V)
            self.memory.write(user, 8, (_BASE + below.user) << 10 | V)
        elif table.level == 0:
            if value & U:
                self._put_leaf(user, page, value & _RIGHTS, _OF_USER)
                self._put_leaf(kernel, page, R | value & W, _OF_USER)
            else:
                self._put_leaf(kernel, page, value & _RIGHTS, 0)

    def _unlink(self, page: int, table: Table, index: int) -> None:
        """Take an entry out of both views; the guest's own still says what it was."""
        frame = self.megapages.pop((page, index), None)
        kernel, user = table.kernel * PAGE + 8 * index, table.user * PAGE + 8 * index
        entry = self._entry(kernel)
        if not entry:
            return
        old = self.memory.read(self.ram.offset(page << 12 | index << 3), 8) >> 10 & mmu.ROOT_PAGES
        self.memory.write(kernel, 8, 0)
        if frame is not None:
            self.memory.flush()
            self._forget(frame, range(old, old + ENTRIES))
            self.frames.give_back_own(frame)
            return
        if self._entry(user):
            self.memory.write(user, 8, 0)
        if entry & _RIGHTS:
            self._forget_leaf(old, kernel)
            self._forget_leaf(old, user)
        else:
            self._release(old)

    # -- leaves ----------------------------------------------------------------------------------------
    def _entry(self, offset: int) -> int:
        return self.memory.views[3][offset >> 3]

    def _put_leaf(self, offset: int, page: int, rights: int, mark: int) -> None:
        granted = _GRANTS_W if rights & W else 0
        if granted and not self._writable(page):
            rights &= ~W
        self.memory.write(offset, 8, (_BASE + self.ram.frame(page)) << 10 | _LEAF | rights | granted | mark)
        self._leaves.setdefault(page, set()).add(offset)

    def _forget_leaf(self, page: int, offset: int) -> None:
        found = self._leaves.get(page)
        if found is not None:
            found.discard(offset)
            if not found:
                del self._leaves[page]

    def _forget(self, frame: int, pages: range) -> None:
        """The entries of a frame that stand for these pages in a row go with it."""
        for index, page in enumerate(pages):
            self._forget_leaf(page, frame * PAGE + 8 * index)

    def _writable(self, page: int) -> bool:
        return page not in self.tables and self.ram.writable(page)

    def refresh(self, page: int) -> None:
        """A page has another frame, or may be stored to or no longer: correct what leads to it."""
        if page not in self._leaves:
            return
        frame, writable = _BASE + self.ram.frame(page), self._writable(page)
        for offset in self._leaves[page]:
            entry = self._entry(offset)
            wanted = entry & 0x3FF & ~W | frame << 10 | (W if entry & _GRANTS_W and writable else 0)
            if wanted != entry:
                self.memory.write(offset, 8, wanted)

    # -- pages that come when they are touched ---------------------------------------------------------
    def fill_megapage(self, table: int, index: int, page: int, value: int) -> None:
        """Put a page of a megapage, whose entry in `table` is `value`, into place. Raises OutOfFramesError."""
        frame = self.megapages.get((table, index))
        if frame is None:
            frame = self.megapages[(table, index)] = self.frames.take()
            self.memory.write(self.tables[table].kernel * PAGE + 8 * index, 8, (_BASE + frame) << 10 | V)
        self._put_leaf(frame * PAGE + 8 * (page % ENTRIES), page, value & _RIGHTS, 0)

    def fill_start(self, page: int) -> None:
        """Put a page of the start space into place. Raises OutOfFramesError."""
        frame = self.start[0]
        for level in (2, 1):
            offset = frame * PAGE + 8 * (page >> 9 * level & ENTRIES - 1)
            entry = self._entry(offset)
            if entry:
                frame = (entry >> 10) - _BASE
            else:
                frame = self.frames.take()
                self.start.append(frame)
                self.memory.write(offset, 8, (_BASE + frame) << 10 | V)
        self._put_leaf(frame * PAGE + 8 * (page % ENTRIES), page, _RIGHTS, 0)

    # -- for the hart ----------------------------------------------------------------------------------
    def satp(self, root: int | None, kernel: bool) -> int | None:
        """The hart's satp for a pinned root, or the start space; None: the root is no table. Raises
        OutOfFramesError."""
        if root is None:
            if not self.start:
                self.start = [self.frames.take()]
            return mmu.SV39 << 60 | _BASE + self.start[0]
        table = self.tables.get(root)
        if table is None or table.level != LEVELS - 1:
            return None
        return mmu.SV39 << 60 | _BASE + (table.kernel if kernel else table.user)

    def grants(self, satp: int, address: int, right: int) -> bool:
        """Does the hart now let this address be accessed so?"""
        table = (satp & mmu.ROOT_PAGES) - _BASE
        for level in (2, 1, 0):
            entry = self._entry(table * PAGE + 8 * (address >> 12 + 9 * level & ENTRIES - 1))
            if not entry & V:
                return False
            table = (entry >> 10) - _BASE
        return bool(entry & right)

    # -- state -----------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """The hart's tables are in host memory; this is where they are."""
        return {
            "tables": [[page, t.level, t.kernel, t.user, t.references] for page, t in self.tables.items()],
            "megapages": [[page, index, frame] for (page, index), frame in self.megapages.items()],
            "start": list(self.start),
        }

    def load(self, state: dict[str, Any]) -> None:
        """The guest's memory and the host's are there."""
        self.tables = {page: Table(*rest) for page, *rest in state["tables"]}
        self.megapages = {(page, index): frame for page, index, frame in state["megapages"]}
        self.start = list(state["start"])
        self._leaves = {}
        frames = [*self.start, *self.megapages.values()]
        frames += [frame for t in self.tables.values() if not t.level for frame in (t.kernel, t.user)]
        pages = {frame: page for page, frame in self.ram.map.items()}
        for frame in frames:
            entries = np.frombuffer(self.memory.read_bytes(frame * PAGE, PAGE), "<u8")
            for index in np.flatnonzero(entries & _RIGHTS).tolist():
                page = pages[(int(entries[index]) >> 10) - _BASE]
                self._leaves.setdefault(page, set()).add(frame * PAGE + 8 * index)
