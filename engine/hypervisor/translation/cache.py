"""The translation cache of one VM: host code in host memory, mapped where the guest's kernel runs and nowhere else.

    0xffff_ffff_fff0_0000   code: the stub ENTER, then blocks in the order in which they were translated
    0xffff_ffff_fffc_0000   the table of jumps: 8192 pieces of code that compare a target and jump to its block
    0xffff_ffff_ffff_ffff

The pages permit execution and nothing else. So a guest that loads or stores there faults, and the VMM does what the
guest's own tables say of that address; a guest that jumps there does not: its jumps are looked up, and what it means
by the address is translated like any other. The table of jumps is code because a table that code can read, the guest
could read as well. Everything lies within one megabyte, so that a direct jump reaches everything.

Each guest instruction has at most one living translation, and the direct jumps to it are jumps to that: those that
were translated before it wait as call-outs (`_waiting`). A block dies when its code is written or its page means
other memory; the jumps to it become call-outs again, and whoever was inside is taken out (`evicted`). Dead blocks keep
their place until the cache is emptied, which happens when it is full or the host wants its frames back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from engine.hypervisor.frames import Frames
from engine.hypervisor.shadow import SpaceKey
from engine.hypervisor.translation.translator import (
    ECALL,
    IN_REGISTER,
    IN_WORD,
    INDEX,
    JUMP_BYTES,
    JUMP_TABLE,
    JUMPS,
    TARGET,
    Call,
    Draft,
    Fix,
    Point,
    jump,
    jump_entry,
    jump_points,
    jump_target,
)
from engine.isa.decoder import encoding_of, length_of
from engine.machine import mmu
from engine.machine.loader import RAM_BASE
from engine.machine.memory import PAGE
from engine.machine.native.translated import FIRST, SECOND

SIZE = 1 << 20
BASE = (1 << 64) - SIZE
CODE_BYTES = SIZE - JUMP_TABLE
_JUMP_TABLE_AT = CODE_BYTES
_WORD = 4
#: The stub at which a vCPU is put whose next instruction could not be fetched: it asks again.
ENTER = Point(0, IN_WORD, call=Call.MISS)
_FIRST_BLOCK = 16
_LEAF = mmu.V | mmu.X | mmu.U | mmu.A | mmu.D
_PAGES = SIZE // PAGE
_TABLE_INDEX = 512 - _PAGES  # of the cache's first page in its table
_MISS = Point(0, IN_REGISTER, (Fix(TARGET, FIRST), Fix(INDEX, SECOND)), Call.MISS)

#: What a translation rests on besides its address: the guest's privilege, and 4 where it may be inline
Mode = int


@dataclass(eq=False)
class Block:
    """A translation. offset: in the cache. pages: the virtual pages that it was read from, with the guest pages behind
    them. incoming: offsets of the jumps to it, which may lie in other blocks and in the table of jumps."""

    offset: int
    mode: Mode
    pages: tuple[tuple[int, int], ...]
    draft: Draft
    incoming: set[int] = field(default_factory=set)

    @cached_property
    def points(self) -> dict[int, Point]:
        return {point.offset: point for point in self.draft.points}

    @cached_property
    def saved(self) -> tuple[Any, ...]:
        """Plain data, the same object for each checkpoint."""
        pc, end, code, points, entries, body = self.draft
        plain = tuple(
            (at, _shown(place), tuple(tuple(fix) for fix in fixes), int(call), word)
            for at, place, fixes, call, word in points
        )
        return self.offset, self.mode, self.pages, (pc, end, code, plain, tuple(entries.items()), body)

    @classmethod
    def of(cls, saved: Any) -> Block:
        offset, mode, pages, (pc, end, code, points, entries, body) = saved
        draft = Draft(
            pc,
            end,
            code,
            tuple(
                Point(at, _place(place), tuple(Fix(*fix) for fix in fixes), Call(call), word)
                for at, place, fixes, call, word in points
            ),
            dict(entries),
            body,
        )
        return cls(offset, mode, tuple((virtual, guest) for virtual, guest in pages), draft)


def _listed(code: bytes | bytearray, base: int, begin: int, end: int) -> list[tuple[int, int]]:
    """(address, encoding) of the instructions in [begin, end) of code at `base`."""
    found = []
    while begin < end:
        word = encoding_of(int.from_bytes(code[begin : begin + 4], "little"))
        found.append((base + begin, word))
        begin += length_of(word)
    return found


def _shown(place: int) -> int:
    """A point's pc in a snapshot, which has no room for a sign beside 64 bits: a guest's pc is even."""
    return place if place >= 0 else -2 * place - 1


def _place(shown: int) -> int:
    return -(shown + 1) // 2 if shown & 1 else shown


class Line(NamedTuple):
    """One guest instruction and what stands for it: (host address, instruction)."""

    pc: int
    call_out: bool
    host: list[tuple[int, int]]


class Reading(NamedTuple):
    """A block for somebody who reads it. stubs: the code behind it, that its branches lead to."""

    pc: int
    end: int
    lines: list[Line]
    stubs: list[tuple[int, int]]


@dataclass
class Counts:
    """What has been done since the VM was switched on. bytes: of code, as long as the cache is not emptied."""

    blocks: int = 0
    instructions: int = 0
    chained: int = 0
    call_outs: int = 0
    faults: int = 0
    retranslated: int = 0
    dropped: int = 0
    flushes: int = 0


class TranslationCache:
    """Frames are taken as they are needed. `evicted(is_inside)`: code is about to change; whoever is at an offset for
    which `is_inside` has to be taken out first. `unmapped()`: the page table `table` is about to go."""

    def __init__(
        self, frames: Frames, evicted: Callable[[Callable[[int], bool]], None], unmapped: Callable[[], None]
    ) -> None:
        self.frames = frames
        self.memory = frames.memory
        self._evicted = evicted
        self._unmapped = unmapped
        self.counts = Counts()
        self.table: int | None = None  # frame of the page table that maps the cache
        self._pages: dict[int, int] = {}  # page of the cache -> frame
        self._used = _FIRST_BLOCK
        self._starts: list[int] = []
        self._at: dict[int, Block] = {}  # by offset; with dead ones
        self._entries: dict[tuple[Mode, int], tuple[int, Block]] = {}  # (mode, guest pc) -> offset
        self._waiting: dict[tuple[Mode, int], set[int]] = {}  # (mode, guest pc) -> call-outs that ask for it
        self._jumps: dict[int, int] = {}  # index in the table of jumps -> guest pc
        self.behind: dict[int, int] = {}  # virtual page -> guest page, of all living blocks
        self.verified: dict[SpaceKey, set[int]] = {}  # by shadow space, those of which the same holds there
        self._of_virtual: dict[int, set[Block]] = {}
        self._of_guest: dict[int, set[Block]] = {}
        self._kept = False
        frames.reclaim.append(self.give_back)

    # -- memory --------------------------------------------------------------------------------------
    def table_frame(self) -> int:
        """The frame of the page table that maps the cache. Raises OutOfFramesError."""
        if self.table is None:
            self.table = self._take()
            self._write(0, ECALL.to_bytes(_WORD, "little"))
        return self.table

    def _take(self) -> int:
        """A frame, without giving up this cache for it."""
        self._kept = True
        try:
            return self.frames.take()
        finally:
            self._kept = False

    def give_back(self) -> None:
        """The host is short of frames."""
        if self.table is None or self._kept:
            return
        self.flush()
        self._evicted(lambda _offset: True)
        self._unmapped()
        for frame in (*self._pages.values(), self.table):
            self.frames.give_back_own(frame)
        self._pages.clear()
        self.table = None
        self.memory.flush()

    def close(self) -> None:
        self.give_back()
        self.frames.reclaim.remove(self.give_back)

    @property
    def bytes_used(self) -> int:
        return self._used - _FIRST_BLOCK

    def _write(self, offset: int, data: bytes) -> None:
        """Raises OutOfFramesError."""
        for at in range(offset & ~(PAGE - 1), offset + len(data), PAGE):
            if at // PAGE not in self._pages:
                self._map(at // PAGE)
        done = 0
        while done < len(data):
            at = offset + done
            part = data[done : done + PAGE - (at & (PAGE - 1))]
            self.memory.write_bytes(self._pages[at // PAGE] * PAGE + (at & (PAGE - 1)), part)
            done += len(part)

    def _map(self, page: int) -> None:
        frame = self._pages[page] = self._take()
        if page * PAGE >= _JUMP_TABLE_AT:
            self.memory.write_bytes(frame * PAGE, ECALL.to_bytes(_WORD, "little") * (PAGE // _WORD))
        assert self.table is not None
        entry = ((RAM_BASE >> 12) + frame) << 10 | _LEAF
        self.memory.write(self.table * PAGE + 8 * (_TABLE_INDEX + page), 8, entry)

    def _read_word(self, offset: int) -> int:
        return self.memory.read(self._pages[offset // PAGE] * PAGE + (offset & (PAGE - 1)), _WORD)

    def _write_word(self, offset: int, word: int) -> None:
        self.memory.write(self._pages[offset // PAGE] * PAGE + (offset & (PAGE - 1)), _WORD, word)

    # -- blocks --------------------------------------------------------------------------------------
    def find(self, mode: Mode, pc: int) -> int | None:
        """The offset of the translation of the instruction at a guest pc."""
        found = self._entries.get((mode, pc))
        return None if found is None else found[0]

    def add(self, mode: Mode, pages: tuple[tuple[int, int], ...], draft: Draft) -> int:
        """Keep a translation; returns the offset of its begin. Raises OutOfFramesError, and then nothing has
        changed but that the cache may be empty."""
        offset = -(-self._used // _WORD) * _WORD
        if offset + len(draft.code) > CODE_BYTES:
            self.flush()
            offset = self._used
        self._write(offset, draft.code)
        self._used = offset + len(draft.code)
        block = Block(offset, mode, pages, draft)
        self._register(block)
        for at, point in self._asking(block):
            key = mode, point.pc
            if key in self._entries:
                self._chain(at, key)
            else:
                self._waiting.setdefault(key, set()).add(at)
        for pc in draft.entries:
            for at in sorted(self._waiting.pop((mode, pc), ())):
                self._chain(at, (mode, pc))
        self.counts.blocks += 1
        self.counts.instructions += len(draft.entries)
        return offset

    @staticmethod
    def _asking(block: Block) -> list[tuple[int, Point]]:
        """The places of a block's direct jumps, as offsets in the cache, and where the guest is there."""
        return [
            (block.offset + point.offset, point) for point in block.draft.points if point.call == Call.CHAIN
        ]

    def _register(self, block: Block) -> None:
        self._starts.append(block.offset)
        self._at[block.offset] = block
        for pc, at in block.draft.entries.items():
            self._entries[block.mode, pc] = block.offset + at, block
        for virtual, guest in block.pages:
            self.behind[virtual] = guest
            self._of_virtual.setdefault(virtual, set()).add(block)
            self._of_guest.setdefault(guest, set()).add(block)

    def _block_at(self, offset: int) -> Block | None:
        """The block, living or dead, that an offset lies in."""
        index = bisect_right(self._starts, offset) - 1
        return self._at[self._starts[index]] if index >= 0 else None

    def block_of(self, mode: Mode, pc: int) -> Block | None:
        """The living block with a guest instruction."""
        found = self._entries.get((mode, pc))
        return None if found is None else found[1]

    def point(self, address: int) -> Point:
        """The guest's state at a host address inside the cache."""
        offset = address - BASE
        if offset >= _JUMP_TABLE_AT:
            index, at = divmod(offset - _JUMP_TABLE_AT, JUMP_BYTES)
            pc = self._jumps.get(index)
            points = () if pc is None else jump_points(pc)
            return next((point for point in points if point.offset == at), _MISS)
        if offset < _FIRST_BLOCK:
            return ENTER
        block = self._block_at(offset)
        assert block is not None
        return block.points[offset - block.offset]

    # -- jumps ---------------------------------------------------------------------------------------
    def _chain(self, at: int, key: tuple[Mode, int]) -> None:
        """Let the call-out at an offset be a jump to a translation."""
        target, block = self._entries[key]
        self._write_word(at, jump(target - at))
        block.incoming.add(at)
        self.counts.chained += 1

    def learn(self, mode: Mode, pc: int) -> bool:
        """Enter `pc` into the table of jumps. False: it has no translation, or its address does not fit. Raises
        OutOfFramesError."""
        found = self._entries.get((mode, pc))
        index = (pc & 2 * JUMPS - 1) >> 1
        at = _JUMP_TABLE_AT + index * JUMP_BYTES
        if found is None:
            return False
        target, block = found
        if not jump_points(pc):
            return False
        self._forget(index)
        self._write(at, b"".join(word.to_bytes(_WORD, "little") for word in jump_entry(pc, at, target)))
        self._jumps[index] = pc
        block.incoming.add(at)
        self.counts.chained += 1
        return True

    def _forget(self, index: int) -> None:
        """Take an entry out of the table of jumps."""
        if self._jumps.get(index) is None:
            return
        at = _JUMP_TABLE_AT + index * JUMP_BYTES
        self._evicted(lambda offset: offset // JUMP_BYTES == at // JUMP_BYTES)
        self._entered(at).incoming.discard(at)
        self._write(at, ECALL.to_bytes(_WORD, "little") * (JUMP_BYTES // _WORD))
        del self._jumps[index]

    def _entered(self, at: int) -> Block:
        """The block that a jump or the entry of the table at an offset leads to."""
        if at >= _JUMP_TABLE_AT:
            pc = self._jumps[(at - _JUMP_TABLE_AT) // JUMP_BYTES]
            at += jump_points(pc)[-1].offset
        block = self._block_at(jump_target(self._read_word(at), at))
        assert block is not None
        return block

    def _asked(self, at: int) -> tuple[Mode, int]:
        """What the direct jump at an offset goes to."""
        block = self._block_at(at)
        assert block is not None
        return block.mode, block.points[at - block.offset].pc

    # -- the end of blocks ---------------------------------------------------------------------------
    def _lives(self, block: Block) -> bool:
        found = self._entries.get((block.mode, block.draft.pc))
        return found is not None and found[1] is block

    def drop(self, blocks: Iterable[Block]) -> None:
        """These are true no longer."""
        dying = sorted(set(blocks), key=lambda block: block.offset)
        if not dying:
            return
        places = {block.offset for block in dying}
        table = {at // JUMP_BYTES for block in dying for at in block.incoming if at >= _JUMP_TABLE_AT}
        self._evicted(
            lambda offset: offset // JUMP_BYTES in table
            or (offset < _JUMP_TABLE_AT and (inside := self._block_at(offset)) is not None and inside.offset in places)
        )
        for block in dying:
            for at in sorted(block.incoming):
                if at >= _JUMP_TABLE_AT:
                    self._forget((at - _JUMP_TABLE_AT) // JUMP_BYTES)
                else:
                    self._write_word(at, ECALL)
                    self._waiting.setdefault(self._asked(at), set()).add(at)
            block.incoming.clear()
            for at, point in self._asking(block):
                if self._read_word(at) == ECALL:
                    asking = self._waiting[block.mode, point.pc]
                    asking.discard(at)
                    if not asking:
                        del self._waiting[block.mode, point.pc]
                else:
                    self._entered(at).incoming.discard(at)
                    self._write_word(at, ECALL)
            for pc in block.draft.entries:
                del self._entries[block.mode, pc]
            for virtual, guest in block.pages:
                self._of_virtual[virtual].discard(block)
                self._of_guest[guest].discard(block)
                if not self._of_virtual[virtual]:
                    del self._of_virtual[virtual], self.behind[virtual]
                    for pages in self.verified.values():
                        pages.discard(virtual)
                if not self._of_guest[guest]:
                    del self._of_guest[guest]
        self.counts.dropped += len(dying)

    def flush(self) -> None:
        """Empty the cache."""
        if not self._starts:
            return
        self._evicted(lambda _offset: True)
        for index in list(self._jumps):
            self._forget(index)
        self._used = _FIRST_BLOCK
        self._starts.clear()
        self._at.clear()
        self._entries.clear()
        self._waiting.clear()
        self.behind.clear()
        self.verified.clear()
        self._of_virtual.clear()
        self._of_guest.clear()
        self.counts.flushes += 1

    def on_virtual_page(self, page: int) -> set[Block]:
        return self._of_virtual.get(page, set())

    def on_guest_page(self, page: int) -> set[Block]:
        return self._of_guest.get(page, set())

    def written(self, address: int, length: int) -> list[Block]:
        """The blocks with code in guest physical [address, address + length)."""
        found = []
        for page in range(address >> 12, (address + length - 1 >> 12) + 1):
            for block in self.on_guest_page(page):
                for virtual, guest in block.pages:
                    # The block's bytes in this page, as offsets from its begin in the guest's virtual space.
                    low = max(block.draft.pc, virtual << 12) - (virtual << 12) + (guest << 12)
                    high = min(block.draft.end, virtual + 1 << 12) - (virtual << 12) + (guest << 12)
                    if guest == page and low < address + length and address < high:
                        found.append(block)
        return found

    # -- looking -------------------------------------------------------------------------------------
    def read(self, block: Block) -> Reading:
        """A block as it is in memory now."""
        draft, code = block.draft, bytearray()
        for at in range(block.offset, block.offset + len(draft.code), 2):
            code += self.memory.read_bytes(self._pages[at // PAGE] * PAGE + (at & (PAGE - 1)), 2)
        places = sorted(draft.entries.items(), key=lambda place: place[1])
        base = BASE + block.offset
        lines = [
            Line(pc, block.points[begin].call in (Call.EMULATE, Call.STORE), _listed(code, base, begin, end))
            for (pc, begin), end in zip(places, [*(at for _, at in places[1:]), draft.body], strict=True)
        ]
        return Reading(draft.pc, draft.end, lines, _listed(code, base, draft.body, len(code)))

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        """The code is in host memory; this is what the VMM knows about it."""
        return {
            "table": self.table,
            "pages": list(self._pages.items()),
            "used": self._used,
            "blocks": [(block.saved, self._lives(block)) for block in self._at.values()],
            "jumps": sorted(self._jumps.items()),
            "verified": [[list(key), sorted(pages)] for key, pages in self.verified.items()],
            "counts": list(vars(self.counts).values()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """The host's memory has been loaded."""
        self.table, self._used = state["table"], state["used"]
        self._pages = dict(state["pages"])
        self._starts = []
        self._at, self._entries, self._waiting = {}, {}, {}
        self.behind, self._of_virtual, self._of_guest = {}, {}, {}
        for saved, lives in state["blocks"]:
            block = Block.of(saved)
            if lives:
                self._register(block)
            else:
                self._starts.append(block.offset)
                self._at[block.offset] = block
        self._jumps = dict(state["jumps"])
        self.verified = {(satp, level, bits): set(pages) for (satp, level, bits), pages in state["verified"]}
        self.counts = Counts(*state["counts"])
        for index in self._jumps:
            at = _JUMP_TABLE_AT + index * JUMP_BYTES
            self._entered(at).incoming.add(at)
        for block in filter(self._lives, self._at.values()):
            for at, point in self._asking(block):
                if self._read_word(at) == ECALL:
                    self._waiting.setdefault((block.mode, point.pc), set()).add(at)
                else:
                    self._entered(at).incoming.add(at)
