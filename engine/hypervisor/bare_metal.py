"""The one system on a bare-metal host: the baseline that every technique is compared with.

Its harts are the host's and its RAM the host's RAM. Traps are delivered by the harts themselves; built-in
firmware serves what goes to M mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.bits import MASK64
from engine.machine.board import Board
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE, LoadedImage
from engine.machine.memory import Memory
from engine.machine.mmu import RecordedWalk
from engine.machine.privileged import MACHINE, SUPERVISOR, USER
from engine.machine.state import NO_STREAK
from engine.trace.record import (
    INTERRUPT_BIT,
    PATH_IDS,
    Action,
    Cause,
    Disposition,
    Kind,
    Level,
)

if TYPE_CHECKING:
    from engine.hypervisor.host import Host

from engine.hypervisor.guest import Guest, TableReader, kind_of


class BareMetalGuest(Guest):
    """The one system on a bare-metal host: its harts are the host's, its RAM the host's RAM."""

    def __init__(
        self, host: Host, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str
    ) -> None:
        super().__init__(host, guest_id, image, vcpus, memory_mib, arguments)
        self._began = [0] * vcpus
        self._make()

    def _make(self) -> None:
        ram = _HostRam(self.host.memory, self.memory_mib << 20)
        self.board = Board(self.vcpu_count, ram, self.now, self, self.fitting)
        self.harts = self.host.harts[: self.vcpu_count]
        for spare in self.host.harts[self.vcpu_count :]:
            spare.stopped = True
        self.board.attach(self.harts)
        self.host.set_devices(self.board.devices)

    def start(self) -> None:
        self.started = self.host.active.clock
        for hart in self.harts:
            hart.power_on(self.board.clint.time)
        self.board.load_image(self.image, self.arguments)
        self._began = [hart.retired for hart in self.harts]
        for hart in self.harts:
            hart.reported = hart.retired
            hart.streak_length, hart.streak_at = 0, NO_STREAK
        self._connect()
        self.begin()

    def _connect(self) -> None:
        for hart in self.harts:
            hart.monitor = self if self.board.firmware else None
            hart.observe = self.observe
            hart.monitored = hart.monitor is not None
            hart.ticks = self.board.clint.time
            hart.time_offset = self.board.clint.offset
            self.host.record_natively(hart, self.id, hart.number, self.started)
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
            self.host.record_in_python(hart)
        self.host.clear_memory()

    def wake(self, hart: int) -> None:
        self.host.retime(self.harts[hart])

    # -- traps ---------------------------------------------------------------------------------------
    def observe(self, hart: Hart, cause: int, value: int, interrupt: bool, origin: int, handler: int) -> None:
        """The hart delivered a trap by itself."""
        kind = kind_of(cause, interrupt)
        self._record(
            hart, kind, cause, value, interrupt, origin, hart.pc, Level.HARDWARE, Action.DELIVER, handler, 0
        )
        if not interrupt:
            self.follow_trap(hart, cause, hart.pc, hart.retired)

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
        # `reported` of a system that came from another host may be below 0, modulo 2**64.
        executed, hart.reported = (hart.retired - hart.reported) & MASK64, hart.retired
        instruction = value if cause == Cause.ILLEGAL_INSTRUCTION and not interrupt else 0
        self.host.record(
            self.id,
            hart.number,
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

    def walked(self, vcpu: int) -> tuple[int, int]:
        hart = self.harts[vcpu]
        return hart.walks, hart.walk_references

    def held(self, vcpu: int, address: int) -> tuple[bool, bool, bool] | None:
        return self.harts[vcpu].holds(address)

    def host_walk(self, vcpu: int, address: int) -> tuple[RecordedWalk, int | None]:  # noqa: ARG002
        return RecordedWalk(TableReader(self.board)), None

    def host_physical(self, gpa: int) -> int | None:
        return gpa

    def save(self) -> dict[str, Any]:
        return super().save() | {
            "reported": [hart.reported for hart in self.harts],
            "began": list(self._began),
            "streaks": [
                [hart.streak_length, hart.streak_at, hart.streak_cause, hart.streak_pc] for hart in self.harts
            ],
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._began = list(state["began"])
        for hart, reported, streak in zip(self.harts, state["reported"], state["streaks"], strict=True):
            hart.reported = reported
            hart.streak_length, hart.streak_at, hart.streak_cause, hart.streak_pc = streak
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
        for hart, shift in zip(self.harts, shifts, strict=True):
            hart.reported += shift
            hart.time_started = self.started
        for hart in self.harts:
            self.host.retime(hart)


_BARE_LEVELS = {USER: Level.USER, SUPERVISOR: Level.KERNEL, MACHINE: Level.FIRMWARE}


class _HostRam:
    """The first `size` bytes of a host's memory as a board's RAM."""

    def __init__(self, memory: Memory, size: int) -> None:
        self._memory = memory
        self.size = size

    def read(self, address: int, length: int) -> bytes:
        return self._memory.read_bytes(address - RAM_BASE, length)

    def write(self, address: int, data: bytes | memoryview) -> None:
        self._memory.write_bytes(address - RAM_BASE, data)
