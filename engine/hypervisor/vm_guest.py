"""A VM as a guest of a host: its technique runs it, its exits become records, and it can be carried
elsewhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from engine.bits import MASK64
from engine.commands import TechniqueId
from engine.hypervisor.binary_translation import BinaryTranslation
from engine.hypervisor.hardware_assist import HardwareAssist
from engine.hypervisor.paravirtual import Paravirtual
from engine.hypervisor.stacks import EXIT_CLASSES, Exit, in_kernel
from engine.hypervisor.technique import Outcome, Technique
from engine.hypervisor.trap_and_emulate import TrapAndEmulate
from engine.hypervisor.vm import VCpu, Vm
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE, LoadedImage
from engine.machine.memory import PAGE, Memory
from engine.machine.mmu import RecordedWalk
from engine.machine.privileged import MACHINE, USER
from engine.machine.state import NEVER
from engine.trace.record import (
    FAILURES,
    INTERRUPT_BIT,
    PATH_IDS,
    Action,
    Cause,
    Disposition,
    Interrupt,
    Kind,
    Level,
)

if TYPE_CHECKING:
    from engine.hypervisor.host import Host

from engine.hypervisor.guest import FAILED, Guest, Pages, TableReader, kind_of

#: Members of enumerations that exits need, by names of their own (why: engine.machine.mmu).
_MMIO_READ, _MMIO_WRITE = Action.MMIO_READ, Action.MMIO_WRITE
_HARDWARE = Disposition.HARDWARE
_KERNEL_DEVICE, _DEVICE = Exit.KERNEL_DEVICE, Exit.DEVICE
#: The techniques there are.
TECHNIQUES: dict[TechniqueId, type[Technique]] = {
    "trap-and-emulate": TrapAndEmulate,
    "binary-translation": BinaryTranslation,
    "hardware-assist": HardwareAssist,
    "paravirtual": Paravirtual,
}


class VmGuest(Guest):
    """A VM under the technique of its host."""

    def __init__(
        self, host: Host, guest_id: int, image: LoadedImage, vcpus: int, memory_mib: int, arguments: str
    ) -> None:
        super().__init__(host, guest_id, image, vcpus, memory_mib, arguments)
        self._make()

    def _make(self) -> None:
        self.paused: int | None = None  # the board's time at which the hypervisor stopped it
        self._moved: tuple[Action, int, int] | None = None  # what the balloon did in the exit that is being handled
        size = self.memory_mib << 20
        technique = self.host.technique
        assert technique is not None
        self.vm = Vm(
            self.host.frames, self.vcpu_count, size, self.now, self, self.fitting, technique.kernel_level,
            None if technique.names_frames else self,
        )  # fmt: skip
        self.board, ram = self.vm.board, self.vm.ram
        self.technique: Technique = technique.of(self)
        ram.stored, ram.remapped, ram.unmap = self.technique.stored, self.technique.remapped, self.technique.unmap
        for vcpu in self.vm.vcpus:
            vcpu.virtual.on_timer = lambda number=vcpu.number: self.wake(number)  # type: ignore[misc]

    def start(self) -> None:
        """Begin from the image. Raises LabError if it does not fit; then nothing is left behind."""
        self.started = self.host.active.clock
        for vcpu in self.vm.vcpus:
            vcpu.arrive(self.started)
        self.board.load_image(self.image, self.arguments)
        self._connect()
        self.begin()

    def _connect(self) -> None:
        for vcpu in self.vm.vcpus:
            vcpu.virtual.monitor = self.board.firmware
            vcpu.virtual.monitored = self.board.firmware is not None
        if self.board.tohost is not None:
            self.vm.ram.watch(self.board.tohost, self.board.look_at_tohost)

    def restart(self) -> None:
        before = self.board.balloon
        self.close()
        self._make()
        if before is not None and self.board.balloon is not None:
            self.board.balloon.ask(before.wished, before.asked)
        self.start()

    def close(self) -> None:
        """Give the host's memory back."""
        self.host.unload_guest(self)
        self.technique.close()
        self.vm.ram.release()

    # -- the balloon ---------------------------------------------------------------------------------
    def inflated(self, pages: list[int]) -> None:
        """The guest's driver put pages into its balloon."""
        given = self.vm.ram.give_up(pages)
        self._note(Action.BALLOON_INFLATE, len(pages), given)

    def deflated(self, pages: list[int]) -> None:
        """And took them out. They come when they are needed."""
        self._note(Action.BALLOON_DEFLATE, len(pages), 0)

    def _note(self, action: Action, pages: int, given: int) -> None:
        known, listed, had = self._moved or (action, 0, 0)
        self._moved = (action, listed + pages, had + given) if known == action else (action, pages, given)

    @property
    def pages(self) -> Pages:
        ram, balloon = self.vm.ram, self.board.balloon
        actual = 0 if balloon is None else min(balloon.actual, ram.pages)
        return Pages(len(ram.map), len(ram.swapped), actual)

    # -- pausing -------------------------------------------------------------------------------------
    @property
    def halted(self) -> bool:
        return self.ended or self.paused is not None

    def now(self) -> int:
        return super().now() if self.paused is None else self.paused

    def pause(self) -> None:
        """Stop every vCPU and the board's clock; input still arrives. The clock stops where the foremost vCPU could
        have seen it."""
        self.host.unload_guest(self)
        self.host.put_to_sleep(self)
        self.paused = max(hart.clock for hart in self.host.harts) - self.started

    def resume(self) -> None:
        """Go on as if no time had passed."""
        assert self.paused is not None
        self.started, self.paused = self.host.time - self.paused, None
        self.host.put_to_sleep(self)
        self.host.look_again()

    def wake(self, hart: int) -> None:
        """Its timer may have changed; interrupt lines are looked at before the next instruction anyway."""
        vcpu = self.vm.vcpus[hart]
        self.technique.wake(vcpu)
        if vcpu.hart is not None:
            self.host.retime(vcpu.hart)
        elif self.host.guests.get(self.id) is self and not self.halted:
            self.host.woken(vcpu)

    # -- stolen time ---------------------------------------------------------------------------------
    def stolen(self, hart: int) -> int:
        return self.vm.vcpus[hart].stolen

    @property
    def ran(self) -> int:
        return sum(vcpu.ran for vcpu in self.vm.vcpus)

    @property
    def stolen_in_all(self) -> int:
        now = self.host.time
        return sum(
            vcpu.stolen + (0 if self.halted or vcpu.asleep or vcpu.hart is not None else max(0, now - vcpu.since))
            for vcpu in self.vm.vcpus
        )

    def tell_stolen(self, vcpu: VCpu) -> None:
        """A vCPU gets a hart: its guest can read how long it waited, if it asked to. Raises OutOfFramesError."""
        if self.board.firmware is not None:
            self.board.firmware.tell_stolen(vcpu.number)

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
        """Charge the switch, and what was waited for pages of another host, and write the record. switched=False: the
        VMM already had the hart, nothing crossed."""
        kind, disposition, action, a, b = outcome.kind, outcome.disposition, outcome.action, outcome.a, outcome.b
        hart, virtual, host = vcpu.hart, vcpu.virtual, self.host
        assert hart is not None
        if self.ended:
            way = host.routes.ways[Exit.PRIVILEGED, origin, None]
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
        elif outcome.device:
            way = host.routes.ways[self._device_exit(action, a), origin, vcpu.level]
            if self._moved is not None:
                (action, a, b), self._moved = self._moved, None
        else:
            way = host.routes.ways[EXIT_CLASSES[action], origin, vcpu.level]
        path, cost, to, by_hardware, between_worlds = way
        if not switched:
            cost = 0
        elif between_worlds:
            hart.flush()
        virtual.moves.charge(virtual.subject, hart.address, cost)
        if self.vm.ram.owed_ns:
            self.wait(hart)
        if by_hardware:
            disposition = _HARDWARE
        else:
            self.exits += 1
        host.trace.record(
            host.id, self.id, vcpu.number, kind, cause, path, disposition, action, origin, to, virtual.exit_time,
            virtual.exit_position, pc, value, instruction, virtual.exit_executed, cost, a, b,
        )  # fmt: skip
        host.recorded(hart)

    def wait(self, hart: Hart) -> bool:
        """A hart waits for what has come for this guest from elsewhere. Was there anything?"""
        owed, self.vm.ram.owed_ns = self.vm.ram.owed_ns, 0
        hart.extra += owed
        return owed > 0

    def shared(self, merged: int, freed: int) -> None:
        """Write the record of what a scan for equal pages came to: see Action.SHARE."""
        self._befell(Action.SHARE, merged, freed)

    def swapped(self, pages: int) -> None:
        """Write the record of what was swapped out: see Action.SWAP_OUT."""
        self._befell(Action.SWAP_OUT, pages, len(self.vm.ram.swapped))

    def _befell(self, action: Action, a: int, b: int) -> None:
        """Write the record of what the hypervisor did to the guest of its own accord. No vCPU of it need have been on a
        hart, and the time that it took is not the price of a switch."""
        vcpu = self.vcpus[0]
        self.technique.catch_up(vcpu)
        level = vcpu.level
        path = self.host.routes.ways[Exit.TIMER, level, level].path
        self.host.record(
            self.id, vcpu.number, Kind.INTERRUPT, INTERRUPT_BIT | Interrupt.SUPERVISOR_TIMER, path, Disposition.EMULATED,
            action, level, level, self.host.active.clock, vcpu.pc, 0, 0, 0, 0, a, b,
        )  # fmt: skip

    def _device_exit(self, action: Action, address: int) -> Exit:
        """The class of an access to a device's register, or of a call about a shared ring, which a host's kernel can
        serve as it can virtio's."""
        by_register = action in (_MMIO_READ, _MMIO_WRITE)
        served = not by_register or in_kernel(self.board.devices.at(address).name)
        return _KERNEL_DEVICE if served else _DEVICE

    def delivered(
        self, vcpu: VCpu, hart: Hart, cause: int, value: int, interrupt: bool, origin: Level, handler: int
    ) -> None:
        """Write the record of a trap that the hart delivered to the guest's kernel by itself, at hart.pc."""
        path = (origin, Level.HARDWARE, vcpu.level)
        executed, hart.reported = (hart.retired - hart.reported) & MASK64, hart.retired
        instruction = value if cause == Cause.ILLEGAL_INSTRUCTION and not interrupt else 0
        self.host.record(
            self.id,
            vcpu.number,
            kind_of(cause, interrupt),
            cause | (INTERRUPT_BIT if interrupt else 0),
            PATH_IDS[path],
            _HARDWARE,
            Action.DELIVER,
            origin,
            path[-1],
            hart.clock - 1,
            hart.pc,
            value,
            instruction & 0xFFFFFFFF,
            executed,
            0,
            handler,
            0,
        )

    def watch_for_trap_loops(self, vcpu: VCpu, cause: int, instructions: int) -> None:
        self.follow_trap(vcpu.virtual, cause, _trapped_at(vcpu.virtual), instructions)

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
        self.technique.catch_up(chosen)
        return chosen.virtual

    def settled(self, vcpu: int) -> bool:
        technique = self.technique
        return not isinstance(technique, BinaryTranslation) or technique.settled(self.vm.vcpus[vcpu])

    def level_of(self, hart: Hart) -> Level:
        return Level.USER if hart.privilege == USER else self.technique.kernel_level

    @property
    def vcpus(self) -> list[VCpu]:
        return self.vm.vcpus

    @property
    def instructions(self) -> int:
        return sum(vcpu.instructions for vcpu in self.vm.vcpus)

    def walked(self, vcpu: int) -> tuple[int, int]:
        return self.vm.vcpus[vcpu].walked

    def held(self, vcpu: int, address: int) -> tuple[bool, bool, bool] | None:
        hart = self.vm.vcpus[vcpu].hart
        return None if hart is None else hart.holds(address)

    def host_walk(self, vcpu: int, address: int) -> tuple[RecordedWalk, int | None]:
        chosen = self.vm.vcpus[vcpu]
        self.technique.catch_up(chosen)
        return self.technique.host_walk(chosen, _HostReader(self.host.memory), address)

    def host_physical(self, gpa: int) -> int | None:
        frame = self.vm.ram.map.frame(gpa >> 12)
        return None if frame is None else self.host_address(frame) | gpa & 0xFFF

    def save(self) -> dict[str, Any]:
        return super().save() | {
            "vcpus": self._saved_vcpus(),
            **self.vm.ram.save(),
            "paused": self.paused,
            "technique": self.technique.save(),
        }

    def _saved_vcpus(self) -> list[dict[str, Any]]:
        for vcpu in self.vm.vcpus:
            self.technique.catch_up(vcpu)
        return [vcpu.save() for vcpu in self.vm.vcpus]

    def load(self, state: dict[str, Any]) -> None:
        """The host has loaded its frames and memory."""
        super().load(state)
        for vcpu, saved in zip(self.vm.vcpus, state["vcpus"], strict=True):
            vcpu.restore(saved)
        self.vm.ram.load(state)
        self.paused = state.get("paused")
        self.technique.load(state["technique"])
        self._connect()

    def export(self) -> dict[str, Any]:
        """The VM without its host: for another host, or to come back to this one."""
        ram = self.vm.ram
        return self.portable() | {"pages": {page: ram.read(page << 12, PAGE) for page in ram.present}}

    def portable(self) -> dict[str, Any]:
        """All but the memory."""
        return super().save() | {
            "vcpus": [self._departing(vcpu) for vcpu in self.vm.vcpus],
            "elapsed": self.now(),
            "share": list(dataclasses.astuple(self.host.scheduler.shares[self.id])),
            **self._shape(),
        }

    def _departing(self, vcpu: VCpu) -> dict[str, Any]:
        """A vCPU without its host: what it waits at this moment is stolen already."""
        self.technique.catch_up(vcpu)
        waits = 0 if vcpu.asleep or vcpu.hart is not None else max(0, self.host.active.clock - vcpu.since)
        return vcpu.save() | {"times": [vcpu.ran, vcpu.stolen + waits]}

    def become_clone(self, original: VmGuest) -> None:
        """Go on from where another VM of this host is now, on its memory, as long as neither stores there."""
        self.take_over(original.portable() | {"pages": {}, "exits": 0})
        original.vm.ram.share_with(self.vm.ram)

    def take_over(self, state: dict[str, Any]) -> None:
        """Become what `export` gave."""
        super().load(state)
        self.started = self.host.active.clock - state["elapsed"]
        for vcpu, saved in zip(self.vm.vcpus, state["vcpus"], strict=True):
            vcpu.restore(saved)
            vcpu.arrive(self.host.active.clock)
        for page, content in state["pages"].items():
            self.vm.ram.write(page << 12, content)
        self._connect()


def _trapped_at(virtual: Hart) -> int:
    """pc of the trap that was just delivered, from where trap entry saved it."""
    return virtual.mepc if virtual.privilege == MACHINE else virtual.sepc


class _HostReader(TableReader):
    """The host's own page tables."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def is_ram(self, address: int) -> bool:
        return self._memory.holds(address, 8)

    def read_entry(self, address: int) -> int:
        return self._memory.read(address - self._memory.base, 8)
