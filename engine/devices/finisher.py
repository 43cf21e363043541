"""The test finisher (SiFive's `sifive_test`): a guest writes a word and its run ends with a status.

    0x0   0x5555                 pass: status 0
          0x3333 | status << 16  fail with that status (a bare 0x3333 counts as 1: QEMU would report success)
          0x7777                 reset

QEMU, hw/misc/sifive_test.c; Linux binds `syscon-poweroff` and `syscon-reboot` to it. Reads give 0, other
values do nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.devices import Label, Node, State, check_access, registers

PASS = 0x5555
FAIL = 0x3333
RESET = 0x7777


class Finisher:
    """Calls `finish(status)` (0..65535) or `reset()`; has no state of its own."""

    def __init__(
        self, finish: Callable[[int], None], reset: Callable[[], None], base: int = 0x100000
    ) -> None:
        self.name = "finisher"
        self.base = base
        self.size = 0x1000
        self._finish = finish
        self._reset = reset

    def read(self, offset: int, size: int) -> int:
        check_access(self.name, offset, size, (2, 4), self.size)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        check_access(self.name, offset, size, (2, 4), self.size)
        if offset != 0:
            return
        command = value & 0xFFFF
        if command == PASS:
            self._finish(0)
        elif command == FAIL:
            self._finish((value >> 16 & 0xFFFF) or 1)
        elif command == RESET:
            self._reset()

    def nodes(self) -> tuple[Node, ...]:
        regmap = Label("test")
        return (
            Node(
                f"test@{self.base:x}",
                {
                    "compatible": ("sifive,test1", "sifive,test0", "syscon"),
                    "reg": registers(self.base, self.size),
                },
                label=regmap.name,
            ),
            *(
                Node(
                    name,
                    {
                        "compatible": f"syscon-{name}",
                        "regmap": (regmap,),
                        "offset": (0,),
                        "value": (value,),
                    },
                )
                for name, value in (("poweroff", PASS), ("reboot", RESET))
            ),
        )

    def save(self) -> State:
        return {}

    def load(self, state: State) -> None:
        if state:
            raise ValueError("the finisher has no state")
