"""PLIC: the platform-level interrupt controller. Device interrupts, by priority, to the harts' contexts.

    0x000000 + 4 s          priority of source s (0: never)      sources are 1, 2, 3 ...; 0 does not exist
    0x001000 + 4 w          pending bits, read only
    0x002000 + 0x80 c       enable bits of context c
    0x200000 + 0x1000 c     threshold of context c
    0x200004 + 0x1000 c     claim (read) / complete (write)

RISC-V PLIC specification 1.0.0. On QEMU's `virt` context 2 h is hart h's M mode and 2 h + 1 its S mode;
priorities and thresholds are three bits wide (WARL). Every register is 4 bytes; reserved ones read 0 and
ignore writes.

The gateway is level-triggered: a high line becomes one pending request, which stays until it is claimed even
if the line falls; the next one is let through when the source has been completed and the line is (still, or
again) high. A claim ignores the threshold (spec, chapter 8); QEMU 7.2 does not, and drops a pending bit when
the line falls.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.devices import Node, State, check_access, hart_interrupts, registers

PENDING = 0x1000
ENABLE = 0x2000
ENABLE_STRIDE = 0x80
CONTEXT = 0x200000
CONTEXT_STRIDE = 0x1000
PRIORITY_MASK = 7


class Plic:
    """`changed(context, level)` is called when the interrupt line to a context rises or falls."""

    def __init__(
        self,
        harts: int,
        changed: Callable[[int, bool], None],
        sources: int = 95,
        base: int = 0xC000000,
    ) -> None:
        if not 1 <= sources <= 1023:
            raise ValueError(f"a PLIC has 1 to 1023 sources, not {sources}")
        self.name = "plic"
        self.base = base
        self.size = 0x600000
        self.sources = sources
        self._harts = harts
        self._changed = changed
        self._words = sources // 32 + 1
        self._valid = (2 << sources) - 2
        self._priority = [0] * (sources + 1)
        self._enable = [0] * (2 * harts)
        self._threshold = [0] * (2 * harts)
        self._level = [False] * (2 * harts)
        self._lines = 0
        self._pending = 0
        self._claimed = 0

    def set_level(self, source: int, level: bool) -> None:
        """A device drives its interrupt line."""
        bit = 1 << source
        if not bit & self._valid:
            raise ValueError(f"the PLIC has sources 1 to {self.sources}, not {source}")
        self._lines = self._lines | bit if level else self._lines & ~bit
        self._let_through(bit)

    def level(self, context: int) -> bool:
        """Is the external interrupt of this context pending?"""
        return self._level[context]

    def _let_through(self, bit: int) -> None:
        if self._lines & bit & ~self._claimed & ~self._pending:
            self._pending |= bit
            self._update()

    def _best(self, context: int, above: int) -> int:
        """The pending, enabled source of the highest priority above `above`, the lowest number first; 0:
        none.
        """
        candidates = self._pending & self._enable[context]
        best = 0
        while candidates:
            source = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            if self._priority[source] > above:
                best, above = source, self._priority[source]
        return best

    def _update(self) -> None:
        for context, old in enumerate(self._level):
            new = self._best(context, self._threshold[context]) != 0
            if new != old:
                self._level[context] = new
                self._changed(context, new)

    def _claim(self, context: int) -> int:
        source = self._best(context, 0)
        if source:
            self._pending &= ~(1 << source)
            self._claimed |= 1 << source
            self._update()
        return source

    def _complete(self, context: int, source: int) -> None:
        if source > self.sources or not self._enable[context] >> source & 1:
            return
        bit = 1 << source
        self._claimed &= ~bit
        self._let_through(bit)

    def read(self, offset: int, size: int) -> int:
        check_access(self.name, offset, size, (4,), self.size)
        if offset < PENDING:
            source = offset >> 2
            return self._priority[source] if source <= self.sources else 0
        if offset < ENABLE:
            word = (offset - PENDING) >> 2
            return self._pending >> (32 * word) & 0xFFFFFFFF if word < self._words else 0
        if offset < CONTEXT:
            context, word = (offset - ENABLE) // ENABLE_STRIDE, (offset % ENABLE_STRIDE) >> 2
            if context < len(self._enable) and word < self._words:
                return self._enable[context] >> (32 * word) & 0xFFFFFFFF
            return 0
        context, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
        if context < len(self._enable):
            if register == 0:
                return self._threshold[context]
            if register == 4:
                return self._claim(context)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        check_access(self.name, offset, size, (4,), self.size)
        if offset < PENDING:
            source = offset >> 2
            if 1 <= source <= self.sources:
                self._priority[source] = value & PRIORITY_MASK
                self._update()
        elif ENABLE <= offset < CONTEXT:
            context, word = (offset - ENABLE) // ENABLE_STRIDE, (offset % ENABLE_STRIDE) >> 2
            if context < len(self._enable) and word < self._words:
                mask = 0xFFFFFFFF << (32 * word)
                enable = (self._enable[context] & ~mask) | (value << (32 * word) & mask)
                self._enable[context] = enable & self._valid
                self._update()
        elif offset >= CONTEXT:
            context, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
            if context < len(self._enable):
                if register == 0:
                    self._threshold[context] = value & PRIORITY_MASK
                    self._update()
                elif register == 4:
                    self._complete(context, value)

    def nodes(self) -> tuple[Node, ...]:
        lines = [(hart_interrupts(hart), line) for hart in range(self._harts) for line in (11, 9)]
        return (
            Node(
                f"plic@{self.base:x}",
                {
                    "compatible": ("sifive,plic-1.0.0", "riscv,plic0"),
                    "reg": registers(self.base, self.size),
                    "interrupt-controller": True,
                    "#interrupt-cells": (1,),
                    "#address-cells": (0,),
                    "riscv,ndev": (self.sources,),
                    "interrupts-extended": tuple(cell for line in lines for cell in line),
                },
                label="plic",
            ),
        )

    def save(self) -> State:
        size = 4 * self._words
        return {
            "priority": list(self._priority),
            "enable": [mask.to_bytes(size, "little") for mask in self._enable],
            "threshold": list(self._threshold),
            "level": list(self._level),
            "lines": self._lines.to_bytes(size, "little"),
            "pending": self._pending.to_bytes(size, "little"),
            "claimed": self._claimed.to_bytes(size, "little"),
        }

    def load(self, state: State) -> None:
        self._priority = list(state["priority"])
        self._enable = [int.from_bytes(mask, "little") for mask in state["enable"]]
        self._threshold = list(state["threshold"])
        self._level = list(state["level"])
        self._lines = int.from_bytes(state["lines"], "little")
        self._pending = int.from_bytes(state["pending"], "little")
        self._claimed = int.from_bytes(state["claimed"], "little")
