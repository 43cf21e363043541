"""Finding equal pages of a host's guests, so that one frame is enough for all of them.

A scanner reads the guests' memory in turns, SCAN_PAGES pages every SCAN_PERIOD_NS of virtual time: the defaults of
Linux' KSM (Documentation/admin-guide/mm/ksm.rst, pages_to_scan and sleep_millisecs). How it finds pages is that of C.
Waldspurger, *Memory Resource Management in VMware ESX Server*, OSDI 2002, section 4.2: a hash of each page is looked up;
what it leads to is only a hint, so both pages are compared in full before the second gets the first's frame. From then
on a store to either is a fault that gives it its own copy (engine.hypervisor.vm.GuestRam.own). A table of hints is for
one round through all pages, as KSM's unstable tree is, because what it says of pages that are stored to grows old.

The scan runs on a hart, which no guest has meanwhile: one step, PAGE_NS for each page. While nothing runs on the host it
goes on to the end of a round and then rests, so that an idle host comes to rest.

Not scanned: a page that somebody watches, and the guests of a technique whose `names_frames` says that the tables in use
lead back from frames to pages (Xen shares the memory of hardware-assisted domains only, too).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from engine.hypervisor.vm import GuestRam
from engine.machine.memory import PAGE

SCAN_PAGES = 100
SCAN_PERIOD_NS = 20_000_000
#: Harvester's documentation of its KSM setting: 100 pages every 20 ms take ksmd some 20 % of a processor, 5 ms in 25.
PAGE_NS = 50_000


class Scan(NamedTuple):
    """What one scan did: it read `pages` of a guest, `merged` of them have another guest page's frame now, and `freed`
    frames are free again."""

    guest: int
    pages: int
    merged: int
    freed: int


class PageScanner:
    """Where a host's scan is. `due`: clock from which the next one may begin. `position`: of the host, right after the
    latest."""

    def __init__(self, clock: int) -> None:
        self.due = clock + SCAN_PERIOD_NS
        self.position = -1
        self._next = (0, 0)  # guest, page: where to go on
        self._hints: dict[int, tuple[int, int]] = {}  # hash -> guest, page
        self._quiet = 0  # rounds that ended since something last ran

    def postpone(self, clock: int) -> None:
        """Something runs again after a rest: it gets a period first."""
        if self.due <= clock:
            self.due = clock + SCAN_PERIOD_NS

    def rests(self, position: int) -> bool:
        """Has nothing run since all was scanned?"""
        return self._quiet > 1 and position == self.position

    def scan(self, memories: Mapping[int, GuestRam], position: int) -> Scan:
        """Read the next pages, all of one guest. memories: by guest. position: of the host, before this."""
        if position != self.position:
            self._quiet = 0
        guest, pages = self._batch(memories)
        merged = freed = 0
        for page in pages:
            found = self._equal(memories, guest, page)
            if found is not None:
                merged += 1
                freed += memories[guest].merge(page, memories[found[0]], found[1])
        return Scan(guest, len(pages), merged, freed)

    def _batch(self, memories: Mapping[int, GuestRam]) -> tuple[int, list[int]]:
        """The next guest that has pages left in this round, and the next of these."""
        for _ in range(2):
            for guest in sorted(memories):
                if guest < self._next[0]:
                    continue
                first = self._next[1] if guest == self._next[0] else 0
                pages = memories[guest].pages_from(first, SCAN_PAGES)
                if pages:
                    self._next = (guest, pages[-1] + 1)
                    return guest, pages
            self._next = (0, 0)
            self._hints = {}
            self._quiet += 1
        return 0, []

    def _equal(self, memories: Mapping[int, GuestRam], guest: int, page: int) -> tuple[int, int] | None:
        """A guest page with the same content in another frame; without one, this page is the hint for others."""
        ram = memories[guest]
        frame = ram.map[page]
        content = ram.memory.read_bytes(frame * PAGE, PAGE)
        digest = int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
        hint = self._hints.get(digest)
        if hint is not None and hint[0] in memories and hint[1] != memories[hint[0]].watched:
            other = memories[hint[0]].map.frame(hint[1])
            if other == frame:
                return None
            if other is not None and ram.memory.read_bytes(other * PAGE, PAGE) == content:
                return hint
        self._hints[digest] = (guest, page)
        return None

    def save(self) -> dict[str, Any]:
        return {
            "due": self.due,
            "position": self.position,
            "next": list(self._next),
            "hints": [[digest, guest, page] for digest, (guest, page) in self._hints.items()],
            "quiet": self._quiet,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.due, self.position, self._quiet = state["due"], state["position"], state["quiet"]
        guest, page = state["next"]
        self._next = (guest, page)
        self._hints = {digest: (guest, page) for digest, guest, page in state["hints"]}
