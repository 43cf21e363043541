"""A guest on a host, as the lab sees it: state, console, inspection, and how it ends.

Two kinds derive from it: a VM under a technique (vm_guest) and whatever runs alone on a bare-metal host
(bare_metal). Both are the `Owner` of their board and turn their traps into records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.commands import Problem
from engine.devices.virtio.block import Disk
from engine.devices.virtio.net import mac_address
from engine.isa.csrs import Status
from engine.machine import csrfile, mmu
from engine.machine.board import Board, Fitting
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE, LoadedImage
from engine.machine.mmu import Access, RecordedWalk
from engine.machine.privileged import MACHINE, SUPERVISOR, walk_options
from engine.machine.state import HartState
from engine.machine.traps import TRAP_LOOP, Trap
from engine.trace.record import (
    FAILURES,
    Cause,
    Kind,
    Level,
    cause_name,
)

if TYPE_CHECKING:
    from engine.hypervisor.host import Host

OFF, RUNNING, IDLE, STOPPED, FAILED = range(5)
_FETCH_CAUSES = (Cause.INSTRUCTION_MISALIGNED, Cause.INSTRUCTION_ACCESS_FAULT, Cause.INSTRUCTION_PAGE_FAULT)


class Pages(NamedTuple):
    """Pages of a guest: in frames, on its host's swap device, and in its balloon as its driver says."""

    present: int
    swapped: int
    ballooned: int


class Guest:
    """What both kinds share. Times are the host's virtual ns.

    What it writes to its disk stays when it is switched off or reboots.
    """

    board: Board

    def __init__(
        self, host: Host, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str
    ) -> None:
        self.host = host
        self.id = guest_id
        self.image = image
        self.vcpu_count = vcpus
        self.memory_mib = memory_mib
        self.arguments = arguments
        self.fitting = Fitting(mac_address(guest_id), None if image.disk is None else Disk(image.disk))
        self.exits = 0
        self.ended_as = OFF  # meaningful while `ended`
        self.ended = True
        self.exit_status: int | None = None
        self.failure: Problem | None = None
        self.reboot_requested = False
        self.started = 0

    @property
    def halted(self) -> bool:
        """Is there nothing of it to execute, whatever happens to it?"""
        return self.ended

    @property
    def machine_mode(self) -> bool:
        """Does it run in M mode itself, with no firmware below it?"""
        return self.board.firmware is None

    # -- owner of the board --------------------------------------------------------------------------
    def now(self) -> int:
        """The board's time: ns since it was switched on."""
        return self.host.active.clock - self.started

    def output(self, data: bytes) -> None:
        self.host.console(self.id, data)

    def transmit(self, frame: bytes) -> None:
        self.host.transmit(self.id, frame)

    def finish(self, status: int) -> None:
        if not self.ended:
            self.exit_status = status
            self._end(STOPPED)

    def reboot(self) -> None:
        self.reboot_requested = True
        self.host.interrupt_all()

    def wake(self, hart: int) -> None:
        """Interrupt lines changed; the host looks at them before the hart's next instruction."""

    def stolen(self, hart: int) -> int | None:  # noqa: ARG002
        """ns that a hart could have run and did not, because the host ran something else; None: nothing else runs."""
        return None

    @property
    def ran(self) -> int:
        """ns that its harts had the host's, all together; a system on bare metal has them whenever it is awake."""
        return self.host.busy_ns

    @property
    def stolen_in_all(self) -> int:
        """ns that its harts waited for one of the host's, all together."""
        return 0

    @property
    def pages(self) -> Pages:
        """Where its memory is, if somebody gives it page by page."""
        return Pages(0, 0, 0)

    def fail(self, key: str, message: str, **params: str | int) -> None:
        """The engine ends the guest."""
        assert key in FAILURES
        self.failure = Problem(key, message, params)
        self._end(FAILED)

    def _end(self, state: int) -> None:
        self.ended, self.ended_as = True, state
        self.host.interrupt_all()

    def begin(self) -> None:
        """A fresh start: subclasses have put the image into memory."""
        self.ended, self.reboot_requested = False, False
        self.exit_status = self.failure = None

    def power_off(self) -> None:
        if not self.ended or self.ended_as != OFF:
            self.exit_status = self.failure = None
            self._end(OFF)

    def receive(self, data: bytes) -> int:
        """Bytes typed on the console; returns how many the guest's queue took."""
        return 0 if self.ended else self.board.receive(data)

    def arrive(self, frames: Sequence[bytes]) -> None:
        """Frames for the guest's network card."""
        if not self.ended:
            self.board.arrive(frames)

    # -- state ---------------------------------------------------------------------------------------
    @property
    def state(self) -> int:
        if self.ended:
            return self.ended_as
        return RUNNING if self.awake() else IDLE

    def awake(self) -> bool:
        raise NotImplementedError

    def hart(self, vcpu: int) -> Hart:
        """The architectural state that the guest believes in, with a true pc."""
        raise NotImplementedError

    def settled(self, vcpu: int) -> bool:  # noqa: ARG002
        """Is the vCPU between two instructions of its own? Under a technique that executes others in their place it may
        be in the midst of one."""
        return True

    def level_of(self, hart: Hart) -> Level:
        raise NotImplementedError

    @property
    def instructions(self) -> int:
        raise NotImplementedError

    @property
    def level(self) -> Level:
        return self.level_of(self.hart(0))

    @property
    def pc(self) -> int:
        return self.hart(0).pc

    # -- double faults -------------------------------------------------------------------------------
    def follow_trap(self, hart: HartState, cause: int, pc: int, instructions: int) -> None:
        """Count exceptions without a retired instruction between them, in the streak of a hart."""
        if hart.streak_at != instructions:
            hart.streak_length, hart.streak_at = 0, instructions
            hart.streak_cause, hart.streak_pc = cause, pc
        hart.streak_length = length = hart.streak_length + 1
        if length >= TRAP_LOOP:
            first_cause, first_pc = hart.streak_cause, hart.streak_pc
            if first_cause in _FETCH_CAUSES:
                key, what = (
                    "jump-to-nowhere",
                    f"The guest jumped to {first_pc:#x}, where no instruction can be fetched",
                )
            elif cause in _FETCH_CAUSES:
                key, what = (
                    "no-trap-handler",
                    f"The guest trapped at {first_pc:#x}, but its trap vector {pc:#x} cannot be fetched",
                )
            else:
                key, what = "trap-loop", f"The guest's trap handler at {pc:#x} faults at once, for ever"
            message = f"{what} ({cause_name(first_cause)})."
            self.fail(
                key,
                message,
                pc=f"{first_pc:#x}",
                handler=f"{pc:#x}",
                cause=first_cause,
                cause_name=cause_name(first_cause),
            )

    # -- inspection ----------------------------------------------------------------------------------
    def registers(self, vcpu: int) -> dict[str, Any]:
        """{"pc", "x", "level", "csrs": {name: value}} as the guest would read them."""
        hart = self.hart(vcpu)
        csrs = csrfile.named(hart)
        csrs |= {
            "mcycle": hart.clock + hart.cycle_offset,
            "minstret": hart.retired + hart.instret_offset,
            "time": hart.ticks(),
        }
        return {
            "pc": hart.pc,
            "x": list(hart.x),
            "level": int(self.level_of(hart)),
            "csrs": {name: value & (1 << 64) - 1 for name, value in csrs.items()},
        }

    def _look(self, vcpu: int, address: int, trail: list[mmu.Step]) -> int:
        """Guest physical address of a virtual one for somebody who only looks. Raises Trap."""
        hart = self.hart(vcpu)
        if hart.privilege == MACHINE or not hart.satp >> 60:
            return address
        walk = RecordedWalk(TableReader(self.board))
        walk.trail = trail
        options = walk_options(hart, 0) | Status.SUM | Status.MXR | mmu.LOOK
        return mmu.walk(walk, hart.satp, 0, address, Access.LOAD, SUPERVISOR, options)

    def read(self, vcpu: int, address: int, length: int, physical: bool) -> bytes | None:
        """`length` bytes within one page, or None where no RAM is mapped."""
        try:
            at = address if physical else self._look(vcpu, address, [])
        except Trap:
            return None
        return self.board.ram.read(at, length) if _within(self.board, at, length) else None

    def physical(self, vcpu: int, address: int) -> int | None:
        """Guest physical address of a virtual one for a debugger; None where no RAM is mapped."""
        try:
            at = self._look(vcpu, address, [])
        except Trap:
            return None
        return at if _within(self.board, at, 1) else None

    def walk(self, vcpu: int, address: int) -> dict[str, Any]:
        """As commands.WalkQuery says. Reading changes nothing."""
        trail: list[mmu.Step] = []
        fault = gpa = None
        try:
            gpa = self._look(vcpu, address, trail)
        except Trap as trap:
            fault = cause_name(trap.cause)
        host, hpa = self.host_walk(vcpu, address)
        # The host's walk goes through the guest's own tables where it has two stages.
        two_stages = bool(host.last) or any(step.second for step in host.trail)
        shadow, second = ([], host.trail) if two_stages else (host.trail, [])
        if hpa is None and gpa is not None and not host.trail:
            hpa = self.host_physical(gpa)
        count, references = self.walked(vcpu)
        held = self.held(vcpu, address)
        stages = [*(step.second for step in second), host.last]
        return {
            "gva": address,
            "guest": [_step(step) for step in trail],
            "gpa": gpa,
            "shadow": [_step(step) for step in shadow],
            "hpa": hpa,
            "second": [[_step(step) for step in stage] for stage in stages if stage],
            "references": {
                "guest": len(trail), "shadow": len(shadow), "second": sum(len(stage) for stage in stages),
            },
            "fault": fault,
            "walks": {"count": count, "references": references},
            "tlb": None if held is None else dict(zip(("load", "store", "fetch"), held, strict=True)),
        }

    def walked(self, vcpu: int) -> tuple[int, int]:
        """As VCpu.walked."""
        raise NotImplementedError

    def held(self, vcpu: int, address: int) -> tuple[bool, bool, bool] | None:
        """As Hart.holds; None: the vCPU is on no hart."""
        raise NotImplementedError

    def host_walk(self, vcpu: int, address: int) -> tuple[RecordedWalk, int | None]:
        """The walk that the host's MMU does for this address, and where it ends."""
        raise NotImplementedError

    def host_physical(self, gpa: int) -> int | None:
        raise NotImplementedError

    def _shape(self) -> dict[str, Any]:
        """What a host needs to know to make room for it."""
        return {"vcpu_count": self.vcpu_count, "memory_mib": self.memory_mib, "arguments": self.arguments}

    def save(self) -> dict[str, Any]:
        return {
            "exits": self.exits,
            "ended": self.ended,
            "ended_as": self.ended_as,
            "exit_status": self.exit_status,
            "failure": None
            if self.failure is None
            else [self.failure.key, self.failure.message, dict(self.failure.params)],
            "started": self.started,
            "reboot": self.reboot_requested,
            "board": self.board.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.exits, self.ended, self.ended_as = state["exits"], state["ended"], state["ended_as"]
        self.exit_status = state["exit_status"]
        self.failure = None if state["failure"] is None else Problem(*state["failure"])
        self.started, self.reboot_requested = state["started"], state["reboot"]
        self.board.load(state["board"])


def _within(board: Board, address: int, length: int) -> bool:
    return address >= RAM_BASE and address + length <= RAM_BASE + board.ram.size


def _step(step: mmu.Step) -> dict[str, Any]:
    leaf = bool(step.entry & mmu.V and step.entry & (mmu.R | mmu.X))
    return {
        "level": step.level,
        "table": step.table,
        "index": step.index,
        "address": step.address,
        "pte": step.entry,
        "flags": mmu.flag_text(step.entry),
        "leaf": leaf,
    }


def kind_of(cause: int, interrupt: bool) -> Kind:
    """What sort of event a trap is for a system that nobody runs below."""
    if interrupt:
        return Kind.INTERRUPT
    if cause == Cause.ECALL_U:
        return Kind.SYSCALL
    if cause in (Cause.ECALL_S, Cause.ECALL_VS):
        return Kind.HYPERCALL
    return Kind.PAGE_FAULT if cause in mmu.PAGE_FAULTS else Kind.EXCEPTION


class TableReader:
    """A guest's page tables for somebody who only looks."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def is_ram(self, address: int) -> bool:
        return _within(self._board, address, 8)

    def read_entry(self, address: int) -> int:
        return int.from_bytes(self._board.ram.read(address, 8), "little")

    def write_entry(self, address: int, entry: int) -> None:  # noqa: ARG002
        raise AssertionError("looking changes nothing")
