"""Swapping by the host: what gives when guests need more frames than there are, because they were promised more.

A host that overcommits its memory has a swap device as large as its RAM. It spares a SPARED part of its frames: when a guest
needs one and no other is free, it gets one of these, and guests with a balloon driver are asked for what is lacking then
(engine.devices.virtio.balloon), all that have given what they were asked for before, and none for more than LEFT of its
memory. What they give is spared again. When nothing is, the hypervisor writes BATCH pages of its guests to the device
(SWAP_CLUSTER_MAX of Linux, include/linux/swap.h) and takes their frames; whoever needs such a page again faults, and it is
read back. No guest can tell but by the time it takes.

Which pages: a hand goes round all pages of all guests (Corbató's clock, 1969). What tells that a page was used lately is
that something leads to it in the tables of its technique, whose leaves have A set from the beginning: the hand takes
that away, and evicts where it finds nothing. So a page in use costs a fault in each round and stays. At most CHANCES
pages in a batch get this second chance; after them it is first in, first out. A frame that several pages share goes only
when there is nothing else, from all of them at once. A page that somebody watches stays.

The device's time is modelled: the vCPU that faults waits READ_NS on its hart, and whoever needed room leaves a step of
the hypervisor behind, WRITE_NS for each page, on the hart that goes on next. They are the typical latencies of 4 KiB at
random of an Intel SSD DC P4500, 1 TB, in Lenovo's product guide of it. What is written, when and why, is executed.

When nothing can be evicted, that is the end of the guest that needed the frame, as it always was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.hypervisor.frames import OutOfFramesError

if TYPE_CHECKING:
    from engine.hypervisor.vm import GuestRam

READ_NS = 85_000
WRITE_NS = 20_000
BATCH = 32
CHANCES = 64
#: Parts: of a host's frames, that are spared; of a guest's pages, that no balloon is asked for.
SPARED, LEFT = 32, 4
#: Pages that the hand looks up at once.
_STRETCH = 256


class Pager:
    """Where the hand is; how many pages of which guest were written and not told of yet, in `written`; and are frames
    `short`, so that guests should be asked?"""

    def __init__(self) -> None:
        self.written: dict[int, int] = {}
        self.short = False
        self._hand = (0, 0)  # guest, page: where to go on

    @property
    def pending(self) -> bool:
        """Has the hypervisor something to do before anything else happens?"""
        return self.short or bool(self.written)

    def evict(self, memories: Mapping[int, GuestRam], keep: int | None) -> list[int]:
        """Swap pages out until some frames are free, which is what it returns; not the frame `keep`. memories: by guest.
        Raises OutOfFramesError when there is nothing to swap."""
        freed: list[int] = []
        chances = CHANCES
        for guest, page in self._round(memories):
            ram = memories[guest]
            frame = ram.map.frame(page)
            if frame is None or frame == keep or page == ram.watched or ram.frames.is_shared(frame):
                continue
            if chances and ram.unmap(page):
                chances -= 1
                continue
            freed.append(self._write(guest, ram, page))
            if len(freed) == BATCH:
                break
        if not freed:
            freed = self._evict_shared(memories, keep)
        if not freed:
            raise OutOfFramesError
        return freed

    def _round(self, memories: Mapping[int, GuestRam]) -> Iterator[tuple[int, int]]:
        """Every page with a frame, from the hand on, once and, as long as second chances made them wait, again."""
        for _ in range(3):
            for guest in sorted(memories):
                if guest < self._hand[0]:
                    continue
                page = self._hand[1] if guest == self._hand[0] else 0
                while stretch := memories[guest].map.tail(page, _STRETCH):
                    for found in stretch:
                        self._hand = (guest, found + 1)
                        yield guest, found
                    page = stretch[-1] + 1
            self._hand = (0, 0)

    def _write(self, guest: int, ram: GuestRam, page: int) -> int:
        self.written[guest] = self.written.get(guest, 0) + 1
        return ram.swap_out(page)

    def _evict_shared(self, memories: Mapping[int, GuestRam], keep: int | None) -> list[int]:
        """Swap the lowest shared frames out of all pages that have them."""
        holders: dict[int, list[tuple[int, int]]] = {}
        watched: set[int] = set()
        for guest in sorted(memories):
            ram = memories[guest]
            pages = list(ram.map)
            for page, frame in zip(pages, ram.map.frames(pages).tolist() if pages else (), strict=True):
                if page == ram.watched:
                    watched.add(frame)
                elif ram.frames.is_shared(frame):
                    holders.setdefault(frame, []).append((guest, page))
        chosen = sorted(holders.keys() - watched - {keep})[:BATCH]
        for frame in chosen:
            for guest, page in holders[frame]:
                self._write(guest, memories[guest], page)
        return chosen

    def forget(self, guest: int) -> None:
        """The guest is gone."""
        self.written.pop(guest, None)

    def save(self) -> dict[str, Any]:
        return {"hand": list(self._hand), "written": dict(self.written), "short": self.short}

    def load(self, state: dict[str, Any]) -> None:
        guest, page = state["hand"]
        self._hand, self.written, self.short = (guest, page), dict(state["written"]), state["short"]
