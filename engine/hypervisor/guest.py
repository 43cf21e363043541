"""A guest on a host, as the lab sees it: state, console, inspection; and how its traps become records.

Two kinds: a VM under a technique, and whatever runs alone on a bare-metal host. Both are an `Owner` of their
board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.commands import Problem
from engine.hypervisor.costs import PATH_CYCLES
from engine.hypervisor.shadow import ShadowTables
from engine.hypervisor.trap_and_emulate import Outcome, TrapAndEmulate
from engine.hypervisor.vm import VCpu, Vm
from engine.isa.csrs import Status
from engine.machine import mmu
from engine.machine.board import Board
from engine.machine.hart import MACHINE, NEVER, SUPERVISOR, USER, Hart
from engine.machine.loader import RAM_BASE, LoadedImage
from engine.machine.memory import PAGE, Memory
from engine.machine.mmu import Access, Trap
from engine.trace.record import (
    FAILURES,
    INTERRUPT_BIT,
    PATH_IDS,
    Action,
    Cause,
    Disposition,
    Kind,
    Level,
    cause_name,
)

if TYPE_CHECKING:
    from engine.hypervisor.host import Host

OFF, RUNNING, IDLE, STOPPED, FAILED = range(5)
#: So many traps of a vCPU in a row without one instruction retired between them: nothing can come of it any
#: more.
TRAP_LOOP = 16
_FETCH_CAUSES = (Cause.INSTRUCTION_MISALIGNED, Cause.INSTRUCTION_ACCESS_FAULT, Cause.INSTRUCTION_PAGE_FAULT)


class Guest:
    """What both kinds share. Times are the host's virtual ns."""

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
        self.exits = 0
        self.ended_as = OFF  # meaningful while `ended`
        self.ended = True
        self.exit_status: int | None = None
        self.failure: Problem | None = None
        self.reboot_requested = False
        self.started = 0

    # -- owner of the board --------------------------------------------------------------------------
    def now(self) -> int:
        """The board's time: ns since it was switched on."""
        return self.host.active.clock - self.started

    def output(self, data: bytes) -> None:
        self.host.console(self.id, data)

    def finish(self, status: int) -> None:
        if not self.ended:
            self.exit_status = status
            self._end(STOPPED)

    def reboot(self) -> None:
        self.reboot_requested = True
        self.host.interrupt_all()

    def wake(self, hart: int) -> None:
        """Interrupt lines changed; the host looks at them before the hart's next instruction."""

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
        return 0 if self.ended else self.board.uart.receive(data)

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
    def follow_trap(
        self, streak: tuple[int, int, int, int], cause: int, pc: int, instructions: int
    ) -> tuple[int, int, int, int]:
        """Count exceptions without a retired instruction between them: (length, instructions, first cause,
        first pc)."""
        length, at, first_cause, first_pc = streak
        if at != instructions:
            length, first_cause, first_pc = 0, cause, pc
        length += 1
        if length >= TRAP_LOOP:
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
        return length, instructions, first_cause, first_pc

    # -- inspection ----------------------------------------------------------------------------------
    def registers(self, vcpu: int) -> dict[str, Any]:
        """{"pc", "x", "level", "csrs": {name: value}} as the guest would read them."""
        hart = self.hart(vcpu)
        csrs = hart.csrs.named()
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
        words = hart.csrs.words
        if hart.privilege == MACHINE or not words["satp"] >> 60:
            return address
        status = words["mstatus"] | Status.SUM | Status.MXR
        tables = _Reader(self.board)
        return mmu.walk(
            tables, words["satp"], address, Access.LOAD, SUPERVISOR, status, trail, update=False
        ).physical

    def read(self, vcpu: int, address: int, length: int, physical: bool) -> bytes | None:
        """`length` bytes within one page, or None where no RAM is mapped."""
        try:
            at = address if physical else self._look(vcpu, address, [])
        except Trap:
            return None
        return self.board.ram.read(at, length) if _within(self.board, at, length) else None

    def walk(self, vcpu: int, address: int) -> dict[str, Any]:
        """As commands.WalkQuery says. Reading changes nothing."""
        trail: list[mmu.Step] = []
        fault = gpa = None
        try:
            gpa = self._look(vcpu, address, trail)
        except Trap as trap:
            fault = cause_name(trap.cause)
        shadow, hpa = self.host_walk(vcpu, address)
        if hpa is None and gpa is not None and not shadow:
            hpa = self.host_physical(gpa)
        return {
            "gva": address,
            "guest": [_step(step) for step in trail],
            "gpa": gpa,
            "shadow": [_step(step) for step in shadow],
            "hpa": hpa,
            "references": {"guest": len(trail), "shadow": len(shadow)},
            "fault": fault,
        }

    def host_walk(self, vcpu: int, address: int) -> tuple[list[mmu.Step], int | None]:
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


class VmGuest(Guest):
    """A VM under trap-and-emulate."""

    def __init__(
        self, host: Host, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str
    ) -> None:
        super().__init__(host, guest_id, image, vcpus, memory_mib, arguments)
        self._make()

    def _make(self) -> None:
        self.vm = Vm(self.host.frames, self.vcpu_count, self.memory_mib << 20, self.now, self)
        self.board = self.vm.board
        self.technique = TrapAndEmulate(self, ShadowTables(self.host.frames, self.vm.ram.frame))
        self.vm.ram.stored = self.technique.shadow.stored

    def start(self) -> None:
        """Begin from the image. Raises LabError if it does not fit; then nothing is left behind."""
        self.started = self.host.active.clock
        self.board.load_image(self.image, self.arguments)
        self._connect()
        self.begin()

    def _connect(self) -> None:
        for vcpu in self.vm.vcpus:
            vcpu.virtual.monitor = self.board.firmware
        if self.board.tohost is not None:
            self.vm.ram.watch(self.board.tohost, self.board.look_at_tohost)

    def restart(self) -> None:
        self.close()
        self._make()
        self.start()

    def close(self) -> None:
        """Give the host's memory back."""
        self.host.unload_guest(self)
        self.technique.shadow.close()
        self.vm.ram.release()

    # -- exits ---------------------------------------------------------------------------------------
    def loaded(self, hart: Hart) -> VCpu:
        vcpu = self.host.loaded[hart.number]
        assert vcpu is not None
        return vcpu

    def exit(
        self,
        vcpu: VCpu,
        outcome: Outcome,
        cause: int,
        pc: int,
        value: int,
        instruction: int,
        origin: Level,
        switched: bool = True,
    ) -> None:
        """Charge the switch and write the record. switched=False: the VMM already had the hart, nothing
        crossed."""
        kind, disposition, action, a, b, device = outcome
        hart = vcpu.hart
        assert hart is not None
        path: tuple[Level, ...]
        if self.ended:
            path = (origin, Level.HYPERVISOR)
            if self.ended_as == FAILED:
                assert self.failure is not None
                disposition, action, a, b = (
                    Disposition.KILLED,
                    Action.KILL,
                    FAILURES.index(self.failure.key),
                    0,
                )
            else:
                disposition, action, a, b = Disposition.EMULATED, Action.SHUTDOWN, self.exit_status or 0, 0
        elif device:
            path = (origin, Level.HYPERVISOR, Level.DEVICE_MODEL, Level.HYPERVISOR, vcpu.level)
        else:
            path = (origin, Level.HYPERVISOR, vcpu.level)
        path_id = PATH_IDS[path]
        cost = PATH_CYCLES[path_id] if switched else 0
        time = hart.clock
        hart.extra += cost
        self.exits += 1
        executed, vcpu.reported = vcpu.instructions - vcpu.reported, vcpu.instructions
        self.host.record(
            self.id,
            vcpu.number,
            kind,
            cause,
            path_id,
            disposition,
            action,
            origin,
            path[-1],
            time,
            pc,
            value,
            instruction,
            executed,
            cost,
            a,
            b,
        )

    def watch_for_trap_loops(self, vcpu: VCpu, cause: int, instructions: int) -> None:
        vcpu.streak = self.follow_trap(vcpu.streak, cause, _trapped_at(vcpu.virtual), instructions)

    def wakes_at(self, vcpu: VCpu) -> int:
        """Host time of the timer interrupt that a sleeping vCPU waits for; 0: it waits for something from
        outside."""
        deadline = vcpu.deadline()
        return 0 if deadline >= NEVER else deadline + self.started

    def host_address(self, frame: int) -> int:
        return RAM_BASE + frame * PAGE

    # -- Guest ---------------------------------------------------------------------------------------
    def awake(self) -> bool:
        return any(vcpu.runnable for vcpu in self.vm.vcpus)

    def hart(self, vcpu: int) -> Hart:
        chosen = self.vm.vcpus[vcpu]
        chosen.virtual.pc = chosen.pc
        return chosen.virtual

    def level_of(self, hart: Hart) -> Level:
        return Level.USER if hart.privilege == USER else Level.KERNEL_DEPRIVILEGED

    @property
    def vcpus(self) -> list[VCpu]:
        return self.vm.vcpus

    @property
    def instructions(self) -> int:
        return sum(vcpu.instructions for vcpu in self.vm.vcpus)

    def host_walk(self, vcpu: int, address: int) -> tuple[list[mmu.Step], int | None]:
        shadow = self.technique.shadow
        key = shadow.key(self.vm.vcpus[vcpu].virtual)
        trail: list[mmu.Step] = []
        if key not in shadow.roots:
            return trail, None
        try:
            satp = mmu.SV39 << 60 | (RAM_BASE >> 12) + shadow.roots[key]
            status = Status.SUM | Status.MXR
            tables = _HostReader(self.host.memory)
            return trail, mmu.walk(
                tables, satp, address, Access.LOAD, USER, status, trail, update=False
            ).physical
        except Trap:
            return trail, None

    def host_physical(self, gpa: int) -> int | None:
        frame = self.vm.ram.map.get(gpa >> 12)
        return None if frame is None else self.host_address(frame) | gpa & 0xFFF

    def save(self) -> dict[str, Any]:
        return super().save() | {
            "vcpus": [vcpu.save() for vcpu in self.vm.vcpus],
            "map": [[page, frame] for page, frame in sorted(self.vm.ram.map.items())],
            "shadow": self.technique.shadow.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """The host has loaded its frames and memory."""
        super().load(state)
        for vcpu, saved in zip(self.vm.vcpus, state["vcpus"], strict=True):
            vcpu.restore(saved)
        self.vm.ram.map = dict(state["map"])
        self.technique.shadow.load(state["shadow"])
        self._connect()

    def export(self) -> dict[str, Any]:
        """The VM without its host: for another host, or to come back to this one."""
        ram = self.vm.ram
        return super().save() | {
            "vcpus": [vcpu.save() for vcpu in self.vm.vcpus],
            "elapsed": self.host.active.clock - self.started,
            **self._shape(),
            "pages": {page: ram.read(page << 12, PAGE) for page in sorted(ram.map)},
        }

    def take_over(self, state: dict[str, Any]) -> None:
        """Become what `export` gave."""
        super().load(state)
        self.started = self.host.active.clock - state["elapsed"]
        for vcpu, saved in zip(self.vm.vcpus, state["vcpus"], strict=True):
            vcpu.restore(saved)
        for page, content in state["pages"].items():
            self.vm.ram.write(page << 12, content)
        self._connect()


class BareMetalGuest(Guest):
    """The one system on a bare-metal host: its harts are the host's, its RAM the host's RAM."""

    def __init__(
        self, host: Host, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str
    ) -> None:
        super().__init__(host, guest_id, image, vcpus, memory_mib, arguments)
        self._reported = [0] * vcpus
        self._began = [0] * vcpus
        self._streaks: list[tuple[int, int, int, int]] = [(0, -1, 0, 0)] * vcpus
        self._make()

    def _make(self) -> None:
        self.board = Board(self.vcpu_count, _HostRam(self.host.memory, self.memory_mib << 20), self.now, self)
        self.harts = self.host.harts[: self.vcpu_count]
        self.board.attach(self.harts)
        self.host.set_devices(self.board.devices)

    def start(self) -> None:
        self.started = self.host.active.clock
        for hart in self.harts:
            hart.power_on(self.board.clint.time)
        self.board.load_image(self.image, self.arguments)
        self._began = [hart.retired for hart in self.harts]
        self._reported = list(self._began)
        self._connect()
        self.begin()

    def _connect(self) -> None:
        for hart in self.harts:
            hart.monitor = self if self.board.firmware else None
            hart.observe = self.observe
            hart.ticks = self.board.clint.time
        if self.board.tohost is not None:
            self.host.memory.watch((self.board.tohost - RAM_BASE) >> 12, self.board.look_at_tohost)

    def restart(self) -> None:
        self.close()
        self._make()
        self.start()

    def close(self) -> None:
        if self.board.tohost is not None:
            self.host.memory.watch((self.board.tohost - RAM_BASE) >> 12, None)
        for hart in self.harts:
            hart.monitor = hart.observe = None
        self.host.clear_memory()

    def wake(self, hart: int) -> None:
        self.host.retime(self.harts[hart])

    # -- traps ---------------------------------------------------------------------------------------
    def observe(self, hart: Hart, cause: int, value: int, interrupt: bool, origin: int, handler: int) -> None:
        """The hart delivered a trap by itself."""
        kind = _bare_kind(cause, interrupt)
        self._record(
            hart, kind, cause, value, interrupt, origin, hart.pc, Level.HARDWARE, Action.DELIVER, handler, 0
        )
        if not interrupt:
            index = hart.number
            self._streaks[index] = self.follow_trap(self._streaks[index], cause, hart.pc, hart.retired)

    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:
        """A trap to the built-in firmware."""
        firmware = self.board.firmware
        assert firmware is not None
        origin, pc = hart.privilege, hart.pc
        firmware.trap(hart, cause, value, interrupt)
        action, a, b = firmware.last
        kind = (
            Kind.INTERRUPT if interrupt else Kind.HYPERCALL if action == Action.SBI_CALL else Kind.EXCEPTION
        )
        self._record(hart, kind, cause, value, interrupt, origin, pc, Level.FIRMWARE, action, a, b)

    def _record(
        self,
        hart: Hart,
        kind: Kind,
        cause: int,
        value: int,
        interrupt: bool,
        origin: int,
        pc: int,
        through: Level,
        action: Action,
        a: int,
        b: int,
    ) -> None:
        begin, end = _BARE_LEVELS[origin], self.level_of(hart)
        disposition = Disposition.HARDWARE if through == Level.HARDWARE else Disposition.EMULATED
        path: tuple[Level, ...] = (begin, through, end)
        if self.ended:
            path, action, a, b = (begin, through), Action.SHUTDOWN, self.exit_status or 0, 0
        index = hart.number
        executed, self._reported[index] = hart.retired - self._reported[index], hart.retired
        instruction = value if cause == Cause.ILLEGAL_INSTRUCTION and not interrupt else 0
        self.host.record(
            self.id,
            index,
            kind,
            cause | (INTERRUPT_BIT if interrupt else 0),
            PATH_IDS[path],
            disposition,
            action,
            begin,
            path[-1],
            hart.clock - 1,
            pc,
            value,
            instruction & 0xFFFFFFFF,
            executed,
            0,
            a,
            b,
        )

    # -- Guest ---------------------------------------------------------------------------------------
    def awake(self) -> bool:
        return any(not hart.stopped and not hart.waiting for hart in self.harts)

    def hart(self, vcpu: int) -> Hart:
        return self.harts[vcpu]

    def level_of(self, hart: Hart) -> Level:
        return _BARE_LEVELS[hart.privilege]

    @property
    def vcpus(self) -> list[Hart]:
        return self.harts

    @property
    def instructions(self) -> int:
        return sum(hart.retired - began for hart, began in zip(self.harts, self._began, strict=True))

    def host_walk(self, vcpu: int, address: int) -> tuple[list[mmu.Step], int | None]:  # noqa: ARG002
        return [], None

    def host_physical(self, gpa: int) -> int | None:
        return gpa

    def save(self) -> dict[str, Any]:
        return super().save() | {
            "reported": list(self._reported),
            "began": list(self._began),
            "streaks": [list(streak) for streak in self._streaks],
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._reported, self._began = list(state["reported"]), list(state["began"])
        self._streaks = [(a, b, c, d) for a, b, c, d in state["streaks"]]
        self._connect()

    def export(self) -> dict[str, Any]:
        """The system without its host, to come back to it or to another one."""
        return self.save() | {
            "harts": [hart.save() for hart in self.harts],
            "elapsed": self.host.active.clock - self.started,
            **self._shape(),
            "pages": self.host.memory.save(),
        }

    def take_over(self, state: dict[str, Any]) -> None:
        """Become what `export` gave. The harts keep counting their own steps and time."""
        self.host.memory.load(state["pages"])
        shifts = [hart.adopt(saved) for hart, saved in zip(self.harts, state["harts"], strict=True)]
        self.load(state)
        self.started = self.host.active.clock - state["elapsed"]
        self._began = [began + shift for began, shift in zip(self._began, shifts, strict=True)]
        self._reported = [reported + shift for reported, shift in zip(self._reported, shifts, strict=True)]
        for hart in self.harts:
            self.host.retime(hart)


_BARE_LEVELS = {USER: Level.USER, SUPERVISOR: Level.KERNEL, MACHINE: Level.FIRMWARE}


def _bare_kind(cause: int, interrupt: bool) -> Kind:
    if interrupt:
        return Kind.INTERRUPT
    if cause == Cause.ECALL_U:
        return Kind.SYSCALL
    if cause == Cause.ECALL_S:
        return Kind.HYPERCALL
    return Kind.PAGE_FAULT if cause in mmu.PAGE_FAULTS else Kind.EXCEPTION


def _trapped_at(virtual: Hart) -> int:
    """pc of the trap that was just delivered, from where trap entry saved it."""
    return virtual.csrs.words["mepc" if virtual.privilege == MACHINE else "sepc"]


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


class _Reader:
    """A guest's page tables for somebody who only looks."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def read_entry(self, address: int) -> int:
        if not _within(self._board, address, 8):
            raise Trap(Cause.LOAD_ACCESS_FAULT, address)
        return int.from_bytes(self._board.ram.read(address, 8), "little")

    def write_entry(self, address: int, entry: int) -> None:  # noqa: ARG002
        raise AssertionError("looking changes nothing")


class _HostReader(_Reader):
    """The host's own page tables."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def read_entry(self, address: int) -> int:
        return self._memory.read(address - self._memory.base, 8)


class _HostRam:
    """The first `size` bytes of a host's memory as a board's RAM."""

    def __init__(self, memory: Memory, size: int) -> None:
        self._memory = memory
        self.size = size

    def read(self, address: int, length: int) -> bytes:
        return self._memory.read_bytes(address - RAM_BASE, length)

    def write(self, address: int, data: bytes) -> None:
        self._memory.write_bytes(address - RAM_BASE, data)
