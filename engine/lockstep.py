"""Two hosts with the same guest, instruction by instruction, to the first one after which the guests differ.

What is compared is what the guest could see: pc, privilege, registers, and the CSRs of its user and supervisor level.
Both are looked at right after the same number of retired instructions, so it does not matter that one of them needed an
exit where the other did not. Nor does the time that the exit took: as soon as the clocks differ, the earlier one is set
to the later after each instruction. sip is left out, because interrupts become pending by the clock.

Memory is not compared: a difference there counts when it is loaded.

While all is equal, clocks included, both run at full speed for STRIDE instructions at a time; a stretch that ends
differently runs again from its begin, one instruction at a time. Each host has one hart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.hypervisor.guest import Guest
from engine.hypervisor.host import Host
from engine.isa.csrs import CSRS
from engine.isa.decoder import length_of
from engine.isa.table import FLOAT_REGISTERS, REGISTERS
from engine.machine import csrfile
from engine.machine.privileged import SUPERVISOR

STRIDE = 4096
#: Instructions that may go one at a time; each costs as much as hundreds at full speed.
MAX_SLOW = 20_000
_SEEN = tuple(row for row in CSRS.values() if row.storage and row.privilege <= SUPERVISOR and row.name != "sip")

#: Told how far it is (0 to 1); False: give up.
Progress = Callable[[float], bool]


class Value(NamedTuple):
    """What a register holds on either side."""

    name: str
    reference: int
    other: int


@dataclass(frozen=True)
class Difference:
    """The instruction (address, encoding) after which the guests differ, and in what. `physical`: where the guest has
    it."""

    pc: int
    physical: int | None
    instruction: int
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Comparison:
    """How many instructions were equal, and what came then: a difference, or None: the guest's end (`ended`), a halt
    that only input can end, or the limit of the comparison."""

    instructions: int
    ended: bool
    difference: Difference | None


class Side:
    """A host with one hart, and the one guest on it."""

    def __init__(self, host: Host) -> None:
        (self.guest,) = host.guests.values()
        (self.hart,) = host.harts
        self.host = host
        self.pc = 0

    def run_to(self, instructions: int) -> None:
        """Until the guest retired so many, ended, or sleeps for ever."""
        while self.guest.instructions < instructions and not self.guest.ended:
            if not self.host.run(instructions - self.guest.instructions):
                return

    def step(self) -> bool:
        """One instruction more, at `pc`. False: none came."""
        before = self.guest.instructions
        while self.guest.instructions == before:
            self.pc = self.guest.pc
            if self.guest.ended or not self.host.run(1):
                return False
        return True

    def state(self) -> dict[str, int]:
        """All that is compared, by name."""
        seen: dict[str, int] = {}
        for vcpu in range(self.guest.vcpu_count):
            hart = self.guest.hart(vcpu)
            mark = f"@{vcpu}" if self.guest.vcpu_count > 1 else ""
            seen |= {f"pc{mark}": hart.pc, f"privilege{mark}": hart.privilege}
            seen |= {f"{name}{mark}": value for name, value in zip(REGISTERS, hart.x, strict=True)}
            seen |= {f"{name}{mark}": value for name, value in zip(FLOAT_REGISTERS, hart.f, strict=True)}
            seen |= {f"{row.name}{mark}": csrfile.read(hart, row) for row in _SEEN}
        return seen


def first_difference(reference: Host, other: Host, instructions: int, progress: Progress | None = None) -> Comparison | None:
    """Run both from where they are, for up to `instructions` of the guest. None: `progress` said no."""
    one, two = Side(reference), Side(other)
    done = begin = one.guest.instructions
    slow = 0
    while done - begin < instructions and slow < MAX_SLOW and not one.guest.ended:
        if progress is not None and not progress((done - begin) / instructions):
            return None
        saved = [side.host.save() for side in (one, two)]
        for side in (one, two):
            side.run_to(done + STRIDE)
        if one.state() == two.state() and one.host.time == two.host.time:
            if one.guest.instructions == done:
                break
            done = one.guest.instructions
            continue
        for side, state in zip((one, two), saved, strict=True):
            side.host.load(state)
        for _ in range(STRIDE):
            slow += 1
            moved = one.step(), two.step()
            _align(one, two)
            states = one.state(), two.state()
            if states[0] != states[1] or moved[0] != moved[1]:
                return Comparison(one.guest.instructions - begin, False, _difference(one, *states))
            if not moved[0]:
                break
        done = one.guest.instructions
    return Comparison(one.guest.instructions - begin, one.guest.ended, None)


def _align(one: Side, two: Side) -> None:
    latest = max(one.hart.clock, two.hart.clock)
    for side in (one, two):
        side.host.delay(side.hart, latest - side.hart.clock)


def _difference(reference: Side, state: dict[str, int], other: dict[str, int]) -> Difference:
    values = tuple(Value(name, value, other[name]) for name, value in state.items() if value != other[name])
    return Difference(reference.pc, *_instruction(reference.guest, reference.pc), values)


def _instruction(guest: Guest, pc: int) -> tuple[int | None, int]:
    word = guest.read(0, pc, 2, False) or b"\0\0"
    if length_of(word[0]) == 4:
        word += guest.read(0, pc + 2, 2, False) or b"\0\0"
    return guest.physical(0, pc), int.from_bytes(word, "little")
