"""A virtual machine as the hypervisor keeps it: guest RAM in host frames, a board, and vCPUs.

A vCPU's `virtual` hart is its architectural state: the privilege and CSRs that the guest believes in. It is a
Hart whose bus leads to guest physical memory, so that emulating an instruction is executing the same table
row on it, and injecting a trap is the architecture's own trap entry. While a vCPU is loaded on a host hart,
both share one register list. What else of its state is then in the hart is the technique's matter: its `catch_up`
brings the virtual hart up to date.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.bits import MASK64, signed
from engine.devices import AccessFault
from engine.hypervisor.frames import Frames
from engine.hypervisor.swapping import READ_NS
from engine.isa.csrs import Status
from engine.machine import mmu
from engine.machine.board import Board, Fitting, Giver, Owner
from engine.machine.bus import Devices
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE
from engine.machine.mappings import NO_PAGE, PAGE_SHARED, RamState
from engine.machine.memory import PAGE
from engine.machine.mmu import Access, RecordedWalk
from engine.machine.native.calls import IN_PYTHON, Moves
from engine.machine.native.procedures import DONE, TRAPPED
from engine.machine.native.runtime import Interpreter
from engine.machine.privileged import MACHINE, walk_options
from engine.machine.state import NEVER, NO_RESERVATION, NO_STREAK
from engine.machine.traps import Trap
from engine.trace.record import Interrupt, Level

FIRST_PAGE = RAM_BASE >> 12
_FRAME = PAGE_SHARED - 1
_USER = Level.USER
#: Pages; bounds what a copy takes besides.
COPIED_AT_ONCE = 1024
_ZERO = bytes(PAGE)


class PageMap(MutableMapping[int, int]):
    """Host frames by guest page number, in words that native code reads and writes: see RamState."""

    def __init__(self, pages: int) -> None:
        buffer = mmap.mmap(-1, 8 * pages)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self._words = memoryview(buffer).cast("Q")
        self._pages = pages

    def frame(self, page: int) -> int | None:
        index = page - FIRST_PAGE
        word = self._words[index] & _FRAME if 0 <= index < self._pages else 0
        return word - 1 if word else None

    def owned(self, page: int) -> int | None:
        """The frame of a page that may be stored to as it is; None: there is none, or it has to be owned first."""
        index = page - FIRST_PAGE
        word = self._words[index] if 0 <= index < self._pages else 0
        return word - 1 if 0 < word < PAGE_SHARED else None

    def __getitem__(self, page: int) -> int:
        frame = self.frame(page)
        if frame is None:
            raise KeyError(page)
        return frame

    def __contains__(self, page: object) -> bool:
        return isinstance(page, int) and self.frame(page) is not None

    def __setitem__(self, page: int, frame: int) -> None:
        index = page - FIRST_PAGE
        if not 0 <= index < len(self._words):
            raise IndexError(f"{page:#x} is no page of the guest's RAM")
        self._words[index] = self._words[index] & PAGE_SHARED | frame + 1

    def __delitem__(self, page: int) -> None:
        self._words[page - FIRST_PAGE] = 0

    def __iter__(self) -> Iterator[int]:
        """In the order of pages."""
        return iter((np.flatnonzero(np.frombuffer(self._words, np.uint64)) + FIRST_PAGE).tolist())

    def tail(self, first: int, count: int) -> list[int]:
        """The first `count` pages from page `first` on."""
        begin = max(0, first - FIRST_PAGE)
        found = np.flatnonzero(np.frombuffer(self._words, np.uint64)[begin:])[:count]
        pages: list[int] = (found + begin + FIRST_PAGE).tolist()
        return pages

    def __len__(self) -> int:
        return int(np.count_nonzero(np.frombuffer(self._words, np.uint64)))

    def clear(self) -> None:
        np.frombuffer(self._words, np.uint64)[:] = 0

    def is_shared(self, page: int) -> bool:
        return bool(self._words[page - FIRST_PAGE] & PAGE_SHARED)

    def set_shared(self, page: int, shared: bool) -> None:
        """Of a page that has a frame."""
        index = page - FIRST_PAGE
        self._words[index] = self._words[index] & ~PAGE_SHARED | (PAGE_SHARED if shared else 0)

    def share(self, pages: Sequence[int]) -> None:
        """As set_shared of each."""
        words = np.frombuffer(self._words, np.uint64)
        words[np.asarray(pages, np.int64) - FIRST_PAGE] |= np.uint64(PAGE_SHARED)

    def frames(self, pages: Sequence[int]) -> npt.NDArray[np.int64]:
        """The frames of pages that have one."""
        words = np.frombuffer(self._words, np.uint64)[np.asarray(pages, np.int64) - FIRST_PAGE]
        return (words & np.uint64(_FRAME)).astype(np.int64) - 1

    def shared(self) -> set[int]:
        words = np.frombuffer(self._words, np.uint64)
        return set((np.flatnonzero(words & np.uint64(PAGE_SHARED)) + FIRST_PAGE).tolist())


class GuestRam(RamState):
    """Guest physical RAM from RAM_BASE on, backed page by page by host frames on first use.

    A clone begins with its original's frames. Whoever of them is about to store to such a page must `own` it
    first: a technique maps a page for storing only if it is `writable`, and asks for it on the fault; every
    store made here does so itself.

    The dirty log works the same way, by write protection and not by the D bits of a second stage: it serves shadow
    tables too, needs no scan of every leaf after each round, and the first store to a page is a trap that can be seen.
    A page that is there and not `clean` may have been stored to since the last `take_dirty`.

    After a post-copy switch (engine.hypervisor.migration) `absent` pages are still at the `origin`: whoever needs one
    gets it from there, and who only reads looks there. The same holds for `swapped` pages, whose content is on the
    host's swap device (engine.hypervisor.swapping). Such a page has no frame and is as promised as one that was never used.

    `stored(address, length)` is told of every write made here, which is every write that the guest does not
    make itself. `remapped(page)` is told that a guest page has another frame now, or became or is no longer
    `writable`: what a technique has mapped there is to be corrected. `protected(pages)`: as that, of many pages in
    ascending order that became unwritable. `unmap(page)`: nothing may lead to this page any more until somebody needs it
    again; returns whether anything did.
    """

    def __init__(self, frames: Frames, size: int) -> None:
        self.frames = frames
        self.memory = frames.memory
        self.size = size
        self.map = PageMap(size // PAGE)
        super().__init__(self.map.at, size // PAGE, NO_PAGE, ctypes.addressof(frames))
        self.logging = False
        self.clean: set[int] = set()  # while logging: pages to `own` before a store, which makes them dirty
        self.absent: set[int] = set()
        self.origin: GuestRam | None = None
        self.fetched = 0  # absent pages that came because somebody needed them
        self.fetch_ns = 0  # what one of them takes
        self.owed_ns = 0  # what no hart has waited for yet, of that and of the swap device
        self.swapped: dict[int, bytes] = {}
        self.stored: Callable[[int, int], None] = _nobody
        self.remapped: Callable[[int], None] = _no_page
        self.protected: Callable[[Sequence[int]], None] = self._each_remapped
        self.unmap: Callable[[int], bool] = _unmapped
        self._watcher: Callable[[], None] = _nothing
        frames.promise(size // PAGE)

    def holds(self, address: int, length: int) -> bool:
        return address >= RAM_BASE and address + length <= RAM_BASE + self.size

    def frame(self, page: int) -> int:
        """The host frame behind a guest page inside RAM, taken on first use."""
        found = self.map.frame(page)
        if found is None:
            found = self.map[page] = self.frames.take_promised()
            if page in self.absent:
                self.fetched += 1
                self.owed_ns += self.fetch_ns
                self._bring(page, found)
            elif page in self.swapped:
                self.owed_ns += READ_NS
                self.memory.write_bytes(found * PAGE, self.swapped.pop(page))
                self._count_away()
                if page in self.clean:
                    self.map.set_shared(page, True)
            if self.watched == page:
                self.memory.watch(found, self._watcher)
        return found

    def writable(self, page: int) -> bool:
        """May the guest store to this page as it is?"""
        return not self.map.is_shared(page)

    @property
    def shared(self) -> set[int]:
        """The guest pages to `own` before a store."""
        return self.map.shared()

    def own(self, page: int) -> int:
        """The frame behind a page that is about to be stored to: from now on this guest's alone."""
        owned = self.map.owned(page)
        if owned is not None:
            return owned
        frame = self.frame(page)
        if self.map.is_shared(page):
            self.clean.discard(page)
            self.map.set_shared(page, False)
            if self.frames.is_shared(frame):
                frame = self.map[page] = self.frames.copy(frame)
            if self.watched == page:
                self.memory.watch(frame, self._watcher)
            self.remapped(page)
        return frame

    def _each_remapped(self, pages: Sequence[int]) -> None:
        for page in pages:
            self.remapped(page)

    # -- the dirty log -------------------------------------------------------------------------------
    def log_dirty(self, logging: bool) -> None:
        """Begin the log, with every page dirty, or end it."""
        clean, self.clean, self.logging = self.clean, set(), logging
        for page in sorted(clean):
            frame = self.map.frame(page)
            if frame is not None and not self.frames.is_shared(frame):
                self.own(page)

    @property
    def dirty(self) -> int:
        """How many pages `take_dirty` would give."""
        return len(self.map) + len(self.swapped) - len(self.clean)

    def take_dirty(self, running: bool = True) -> list[int]:
        """The pages that may have been stored to since the last time; from now on they are clean. running=False: no vCPU
        runs until the log ends, so that only who stores here has to be noticed."""
        there = [page for page in self.map if page not in self.clean]
        pages = sorted([*there, *(self.swapped.keys() - self.clean)])
        self.clean.update(pages)
        self.map.share(there)
        if running:
            self.protected(there)
        return pages

    def copy_to(self, other: GuestRam, pages: Sequence[int]) -> None:
        """Put the content of `pages`, which are there or swapped, into another VM's RAM. Raises OutOfFramesError."""
        if self.swapped or other.frames.overcommitted:
            for page in pages:  # what it takes to have one there may swap out another
                other.memory.write_bytes(other.frame(page) * PAGE, self.read(page << 12, PAGE))
            return
        for first in range(0, len(pages), COPIED_AT_ONCE):
            part = pages[first : first + COPIED_AT_ONCE]
            frames = np.fromiter(map(other.frame, part), np.int64, len(part))
            other.memory.copy_pages(frames, self.memory, self.map.frames(part))

    # -- pages that are elsewhere --------------------------------------------------------------------
    def leave_at(self, origin: GuestRam | None, absent: Iterable[int] = (), fetch_ns: int = 0) -> None:
        """The content of `absent` pages is here as soon as somebody needs it, which takes `fetch_ns`."""
        self.origin, self.absent, self.fetch_ns = origin, set(absent), fetch_ns
        self._count_away()

    def _count_away(self) -> None:
        self.away = len(self.absent) + len(self.swapped)

    def is_away(self, page: int) -> bool:
        """Is its content anywhere but in a frame?"""
        return page in self.absent or page in self.swapped

    @property
    def present(self) -> list[int]:
        """The pages with content of their own, wherever it is, ascending."""
        return sorted(self.map.keys() | self.absent | self.swapped.keys())

    def swap_out(self, page: int) -> int:
        """Give a page's frame up and leave the content on the swap device. Returns the frame: nobody may remember it."""
        frame = self.map[page]
        self.unmap(page)
        content = self.memory.read_bytes(frame * PAGE, PAGE)
        self.swapped[page] = _ZERO if content == _ZERO else content
        del self.map[page]
        self._count_away()
        self.frames.exchange(frame)
        return frame

    def give_up(self, pages: Iterable[int]) -> int:
        """Forget what is in these pages: whoever needs one again finds zeros. Returns how many had anything. A watched
        page stays, and what is no page of this RAM is none."""
        given = 0
        for page in pages:
            if page == self.watched or not self.holds(page << 12, PAGE):
                continue
            frame = self.map.frame(page)
            if frame is not None:
                self.unmap(page)
                del self.map[page]
                self.frames.exchange(frame)
            elif self.swapped.pop(page, None) is None and page not in self.absent:
                continue
            self.absent.discard(page)
            self.clean.discard(page)
            self._count_away()
            self.stored(page << 12, PAGE)
            given += 1
        return given

    def swap_in(self) -> None:
        """Have every page in a frame again. Raises OutOfFramesError."""
        owed = self.owed_ns
        for page in sorted(self.swapped):
            self.frame(page)
        self.owed_ns = owed

    def fetch(self, pages: Sequence[int]) -> None:
        """Bring absent pages over before somebody needs them."""
        if pages:
            assert self.origin is not None
            self.absent.difference_update(pages)
            self._count_away()
            self.origin.copy_to(self, pages)

    def _bring(self, page: int, frame: int) -> None:
        origin = self.origin
        assert origin is not None
        self.absent.discard(page)
        self._count_away()
        self.map[page] = frame
        self.memory.write_bytes(frame * PAGE, origin.read(page << 12, PAGE))

    def share_with(self, clone: GuestRam) -> None:
        """Give a new VM of the same size every frame that this one has. Nobody watches a shared frame: nobody
        stores to it."""
        self.fetch(sorted(self.absent))
        clone.swapped = dict(self.swapped)
        clone._count_away()
        for page, frame in self.map.items():
            self.frames.share(frame)
            clone.map[page] = frame
            clone.map.set_shared(page, True)
            if self.watched == page:
                self.memory.watch(frame, None)
            if not self.map.is_shared(page):
                self.map.set_shared(page, True)
                self.remapped(page)

    # -- sharing of equal pages ----------------------------------------------------------------------
    def pages_from(self, first: int, count: int) -> list[int]:
        """The first `count` pages from page `first` on that have a frame and are not watched, ascending."""
        return [page for page in self.map.tail(first, count) if page != self.watched]

    def merge(self, page: int, other: GuestRam, other_page: int) -> bool:
        """Let a page, whose content equals that of another VM's (or this one's) page of this host, have that one's
        frame. Whether the guest stores to it or not, nothing can tell but the time it takes. True: a frame is free
        for it."""
        assert page != self.watched
        assert other_page != other.watched
        frame, shared = self.map[page], other.map[other_page]
        freed = not self.frames.is_shared(frame)
        self.frames.share(shared)
        self.frames.exchange(frame)
        self.map[page] = shared
        self.map.set_shared(page, True)
        self.remapped(page)
        if not other.map.is_shared(other_page):
            other.map.set_shared(other_page, True)
            other.remapped(other_page)
        return freed

    def watch(self, address: int, watcher: Callable[[], None]) -> None:
        """Tell `watcher` after each store to this address's page."""
        self.watched, self._watcher = address >> 12, watcher
        if address >> 12 in self.map and self.writable(address >> 12):
            self.memory.watch(self.map[address >> 12], watcher)

    def offset(self, address: int) -> int:
        """Offset in host RAM of a guest physical address inside RAM, for loading."""
        return self.frame(address >> 12) * PAGE + (address & 0xFFF)

    def store_offset(self, address: int) -> int:
        """As `offset`, for storing."""
        return self.own(address >> 12) * PAGE + (address & 0xFFF)

    def read(self, address: int, length: int) -> bytes:
        if (address & 0xFFF) + length <= PAGE and (frame := self.map.frame(address >> 12)) is not None:
            return self.memory.read_bytes(frame * PAGE + (address & 0xFFF), length)
        parts = []
        for at, chunk in _chunks(address, length):
            frame = self.map.frame(at >> 12)
            if frame is not None:
                parts.append(self.memory.read_bytes(frame * PAGE + (at & 0xFFF), chunk))
            elif at >> 12 in self.swapped:
                parts.append(self.swapped[at >> 12][at & 0xFFF : (at & 0xFFF) + chunk])
            elif at >> 12 in self.absent and self.origin is not None:
                parts.append(self.origin.read(at, chunk))
            else:
                parts.append(bytes(chunk))
        return b"".join(parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        done, length = 0, len(data)
        if 0 < length <= PAGE - (address & 0xFFF):
            self.memory.write_bytes(self.store_offset(address), data)
        else:
            for at, chunk in _chunks(address, length):
                self.memory.write_bytes(self.store_offset(at), data[done : done + chunk])
                done += chunk
        self.stored(address, length)

    def release(self) -> None:
        """Give every frame back, in the order of guest pages: that of first use is not part of a snapshot."""
        if self.watched in self.map and self.writable(self.watched):
            self.memory.watch(self.map[self.watched], None)
        self.frames.release(self.size // PAGE, self.map.values())
        self.map.clear()
        self.clean, self.logging, self.swapped = set(), False, {}
        self.leave_at(None)

    def save(self) -> dict[str, Any]:
        """What is behind which page; the content is in host memory, that of absent pages at the origin, that of swapped
        ones here."""
        return {
            "map": [[page, frame] for page, frame in self.map.items()],
            "shared": sorted(self.shared),
            "swapped": dict(self.swapped),
            "log": {
                "logging": self.logging, "clean": sorted(self.clean), "absent": sorted(self.absent),
                "fetched": self.fetched, "owed_ns": self.owed_ns,
            },
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """As saved; the log is not in what was saved before there was one."""
        self.map.clear()
        self.map.update(dict(state["map"]))
        for page in state["shared"]:
            self.map.set_shared(page, True)
        self.swapped = dict(state.get("swapped", {}))
        if not all(self.holds(page << 12, len(content)) and len(content) == PAGE for page, content in self.swapped.items()):
            raise ValueError("a page on the swap device that is none")
        log = state.get("log", {})
        self.logging, self.clean = log.get("logging", False), set(log.get("clean", ()))
        self.fetched, self.owed_ns = log.get("fetched", 0), log.get("owed_ns", 0)
        self.leave_at(None, log.get("absent", ()))


class GuestBus:
    """Guest physical memory as a virtual hart reaches it: never cached, because frames and tables may change
    behind it.

    `touched` is the latest device access: (is it a write, guest physical address, value).
    """

    def __init__(self, ram: GuestRam, devices: Devices) -> None:
        self.ram = ram
        self.memory = ram.memory
        self.devices = devices
        self.touched: tuple[bool, int, int] | None = None

    def offset(self, address: int) -> None:  # noqa: ARG002
        return None

    def is_ram(self, address: int) -> bool:
        return self.ram.holds(address, 1)

    def read(self, address: int, size: int) -> int:
        if self.ram.holds(address, size):
            return self.memory.read(self.ram.offset(address), size)
        value = self.devices.read(address, size)
        self.touched = (False, address, value)
        return value

    def write(self, address: int, size: int, value: int) -> None:
        if self.ram.holds(address, size):
            self.memory.write(self.ram.store_offset(address), size, value)
            self.ram.stored(address, size)
        else:
            self.touched = (True, address, value & ((1 << 8 * size) - 1))
            self.devices.write(address, size, value)

    def read_entry(self, address: int) -> int:
        frame = self.ram.map.frame(address >> 12)
        if frame is None:
            if not self.ram.holds(address, 8):
                raise AccessFault("page-table walker", address, 8)
            frame = self.ram.frame(address >> 12)
        return self.memory.read(frame * PAGE + (address & 0xFFF), 8)

    def write_entry(self, address: int, entry: int) -> None:
        self.memory.write(self.ram.store_offset(address), 8, entry)


class VirtualHart(Hart):
    """A vCPU's architectural state. Its clock is the VM's, its instruction count the vCPU's. `carrier`: the host hart
    whose own VS mode runs it now; `direct`: it takes its interrupts and timer by itself, too. `arrived`: software
    interrupts raised here since the VMM last handed them to a carrier that does not. `known`: an access that was
    translated for the instruction being emulated (virtual address, access, guest physical address). `lent`: the
    native code of the hart that the vCPU is on. `moves`: what brings its state to that hart and back, called with
    `subject`."""

    bus: GuestBus  # type: ignore[assignment]

    def __init__(self, number: int, bus: GuestBus, board: Board) -> None:
        self._board = board
        self.instructions: Callable[[], int] = _zero
        self.carrier: Hart | None = None
        self.direct = True
        self.arrived = 0
        self.known: tuple[int, Access, int] | None = None
        super().__init__(number, bus, board.clint.time)  # type: ignore[arg-type]
        # It never caches a translation, so it need not hear of changes.
        bus.memory.caches.remove(self)
        self.guest_ram_at, self.memory_at = ctypes.addressof(bus.ram), ctypes.addressof(bus.memory)
        self.lent: Interpreter | None = None
        self.moves: Moves = IN_PYTHON
        self.subject: VirtualHart | int = self
        self._walk: RecordedWalk | None = None

    @property
    def clock(self) -> int:
        return self._board.now()

    @property
    def retired(self) -> int:
        return self.instructions()

    @property
    def interpreter(self) -> Interpreter | None:
        return self.lent

    def lend(self, native: Interpreter | None) -> None:
        """The vCPU is on a hart that executes by this native code, or by none."""
        self.lent = native
        self.moves, self.subject = (IN_PYTHON, self) if native is None else (native.moves, self.address)

    def translate(self, address: int, access: Access) -> int:
        known = self.known
        if known is not None and address == known[0] and access == known[1]:
            return known[2]
        if self._walked_natively(address, access):
            return self.bus.ram.target
        return super().translate(address, access)

    def _access(self, address: int, size: int, access: Access, value: int | None) -> int:
        if (address & 0xFFF) + size > PAGE:
            return super()._access(address, size, access, value)
        physical = self.translate(address, access)
        try:
            if value is None:
                return self.bus.read(physical, size)
            self.bus.write(physical, size, value)
        except AccessFault:
            raise Trap(mmu.access_fault(access), address) from None
        return 0

    def walk(self, address: int, access: Access) -> int:
        """Where an address leads by the guest's tables, which the VMM follows for the guest: see `leaf` and `trail`. Raises
        Trap. Not for where loads and fetches differ (MPRV)."""
        self._walk = None
        if self._walked_natively(address, access):
            return self.bus.ram.target
        return self._walk_in_python(address, access, walk_options(self, 0))

    def look_up(self, address: int, access: Access, options: int) -> int:
        """As `walk`, and nothing is set in the guest's tables. options: of mmu.walk, with LOOK."""
        self._walk = None
        if self.lent is not None and self._went(self.lent.look(self.address, address, access, options)):
            return self.bus.ram.target
        return self._walk_in_python(address, access, options)

    def _walk_in_python(self, address: int, access: Access, options: int) -> int:
        walk = self._walk = RecordedWalk(self.bus)
        satp = 0 if self.privilege == MACHINE else self.satp
        return mmu.walk(walk, satp, 0, address, access, self.privilege, options)

    @property
    def walker(self) -> Interpreter | None:
        """The native code that made the latest `walk`; None: Python did."""
        return self.lent if self._walk is None else None

    @property
    def leaf(self) -> int:
        """The entry at which the latest `walk` ended."""
        return self.bus.ram.leaf if self._walk is None else self._walk.leaf

    @property
    def reached(self) -> tuple[int, int]:
        """The level and the table of that entry."""
        if self._walk is None:
            ram = self.bus.ram
            return ram.level, ram.trail[ram.level]
        step = self._walk.trail[-1]
        return step.level, step.table

    @property
    def trail(self) -> Sequence[int]:
        """The guest physical addresses of the tables that the latest `walk` went through."""
        if self._walk is None:
            ram = self.bus.ram
            return ram.trail[ram.level :][::-1]
        return [step.table for step in self._walk.trail]

    def _walked_natively(self, address: int, access: Access) -> bool:
        """Where it led is in RamState. Raises Trap. False: only Python can do it."""
        return self.lent is not None and self._went(self.lent.walk(self.address, address, access))

    def _went(self, ended: int) -> bool:
        """See _walked_natively. ended: how native code ended."""
        if ended == DONE:
            return True
        if ended == TRAPPED:
            raise Trap(self.trap_cause, self.trap_value)
        return False

    def refresh(self) -> None:
        """It has no caches to choose among."""

    def set_line(self, interrupt: Interrupt, level: bool) -> None:
        super().set_line(interrupt, level)
        if self.carrier is not None and self.direct and interrupt == Interrupt.SUPERVISOR_EXTERNAL:
            bit = 1 << Interrupt.VIRTUAL_SUPERVISOR_EXTERNAL
            self.carrier.mip = self.carrier.mip | bit if level else self.carrier.mip & ~bit
            self.carrier.look_at_interrupts()

    def raise_software(self, interrupt: Interrupt) -> None:
        super().raise_software(interrupt)
        if self.carrier is None or interrupt != Interrupt.SUPERVISOR_SOFTWARE:
            return
        if self.direct:
            self.carrier.raise_software(Interrupt.VIRTUAL_SUPERVISOR_SOFTWARE)
        else:
            self.arrived |= 1 << interrupt

    def timer_due(self) -> int:
        if self.carrier is None or not self.direct:
            return super().timer_due()
        due = self.carrier.timer_due()
        return due if due >= NEVER else due + signed(self.carrier.htimedelta)

    def keep_registers(self) -> None:
        """Off a host hart: hold the registers here again."""
        x, f = self.x, self.f
        self.own_registers()
        self.x[:], self.f[:] = x, f


class VCpu:
    """A virtual hart and where it runs. `hart` is the host hart that it is loaded on, if any.

    Off the harts it is `asleep`, or waits for one, `since` a clock of its host; `woken`: when it could have gone on,
    if the scheduler has not heard of that yet. `ran` and `stolen`: ns that it had a hart, and that it waited for one.
    """

    def __init__(self, vm: Vm, virtual: VirtualHart) -> None:
        self.vm = vm
        self.virtual = virtual
        self.number = virtual.number
        self.hart: Hart | None = None
        self._walked = (0, 0)
        self.asleep, self.since, self.ran, self.stolen = True, 0, 0, 0
        self.woken: int | None = None
        virtual.streak_at = NO_STREAK
        virtual.instructions = lambda: self.instructions

    @property
    def instructions(self) -> int:
        """Instructions that this vCPU retired, directly or emulated."""
        base = self.virtual.instructions_base
        return base if self.hart is None else base + self.hart.retired & MASK64

    @property
    def reported(self) -> int:
        """Instructions at the guest's latest record of this vCPU."""
        return self.virtual.reported

    @reported.setter
    def reported(self, instructions: int) -> None:
        self.virtual.reported = instructions

    @property
    def streak(self) -> tuple[int, int, int, int]:
        """See Guest.follow_trap."""
        virtual = self.virtual
        return virtual.streak_length, virtual.streak_at, virtual.streak_cause, virtual.streak_pc

    @streak.setter
    def streak(self, streak: tuple[int, int, int, int]) -> None:
        virtual = self.virtual
        virtual.streak_length, virtual.streak_at, virtual.streak_cause, virtual.streak_pc = streak

    @property
    def walked(self) -> tuple[int, int]:
        """Walks that harts did for it and memory references that these made, since it began or was put into a state."""
        walks, references = self._walked
        return (walks, references) if self.hart is None else (
            walks + self.hart.walks, references + self.hart.walk_references
        )  # fmt: skip

    @property
    def pc(self) -> int:
        return self.hart.pc if self.hart is not None else self.virtual.pc

    @property
    def level(self) -> Level:
        virtual = self.virtual
        carrier = virtual.carrier
        return self.vm.kernel_level if (virtual if carrier is None else carrier).privilege else _USER

    @property
    def runnable(self) -> bool:
        virtual = self.virtual
        if virtual.waiting:
            virtual.wake_if_pending()
        return not (virtual.waiting or virtual.stopped)

    def load(self, hart: Hart) -> None:
        self.hart = hart
        virtual = self.virtual
        virtual.lend(hart.interpreter)
        walks, references = self._walked
        self._walked = walks - hart.walks, references - hart.walk_references
        virtual.instructions_base -= hart.retired
        hart.x[:], hart.f[:] = virtual.x, virtual.f
        virtual.x, virtual.f = hart.x, hart.f
        hart.reservation = NO_RESERVATION

    def unload(self) -> None:
        """The virtual hart is up to date."""
        hart = self.hart
        assert hart is not None
        self.virtual.instructions_base = self.instructions
        self._walked = self.walked
        self.virtual.keep_registers()
        self.virtual.lend(None)
        hart.clear_registers()
        hart.fcsr, hart.mstatus = 0, hart.mstatus & ~(Status.FS | Status.SD)
        self.hart = None

    def deadline(self) -> int:
        """Board time of the vCPU's next timer interrupt, NEVER if it is masked or not set."""
        return self.vm.board.deadline(self.number)

    def save(self) -> dict[str, Any]:
        """The virtual hart is up to date."""
        return {
            "virtual": self.virtual.save(),
            "retired": self.instructions, "reported": self.reported, "streak": list(self.streak),
            "arrived": self.virtual.arrived,
            "times": [self.ran, self.stolen], "off": [self.asleep, self.since, self.woken],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """State as saved; not loaded on a hart."""
        self.hart, self._walked = None, (0, 0)
        self.virtual.lend(None)
        self.virtual.carrier = None
        self.virtual.own_registers()
        self.virtual.load(state["virtual"])
        self.virtual.arrived = state.get("arrived", 0)
        self.virtual.instructions_base, self.reported = state["retired"], state["reported"]
        a, b, c, d = state["streak"]
        self.streak = (a, b, c, d)
        self.ran, self.stolen = state.get("times", (0, 0))  # a lab may have been saved before these were
        self.asleep, self.since, self.woken = state.get("off", (True, 0, None))

    def arrive(self, clock: int) -> None:
        """Be asleep on a host whose clock this is."""
        self.asleep, self.since, self.woken = True, clock, None


class Vm:
    """Memory, board and vCPUs of one guest."""

    def __init__(
        self,
        frames: Frames,
        vcpus: int,
        memory_bytes: int,
        now: Callable[[], int],
        owner: Owner,
        fitting: Fitting,
        kernel_level: Level,
        giver: Giver | None,
    ) -> None:
        self.kernel_level = kernel_level  # where the guest's kernel runs
        self.ram = GuestRam(frames, memory_bytes)
        self.board = Board(vcpus, self.ram, now, owner, fitting, giver)
        bus = GuestBus(self.ram, self.board.devices)
        harts = [VirtualHart(number, bus, self.board) for number in range(vcpus)]
        self.board.attach(harts)
        self.vcpus = [VCpu(self, hart) for hart in harts]


def _chunks(address: int, length: int) -> list[tuple[int, int]]:
    """[address, address + length) cut at page ends: (address, length) of each part."""
    parts = []
    end = address + length
    while address < end:
        chunk = min(end - address, PAGE - (address & 0xFFF))
        parts.append((address, chunk))
        address += chunk
    return parts


def _nobody(_address: int, _length: int) -> None:
    """Nobody asks."""


def _no_page(_page: int) -> None:
    """Nothing is mapped."""


def _unmapped(_page: int) -> bool:
    """Nothing is mapped."""
    return False


def _nothing() -> None:
    """Nobody watches."""


def _zero() -> int:
    return 0
