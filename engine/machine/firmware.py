"""Built-in firmware: what OpenSBI is on a real board, written at M level.

It serves SBI calls. It is a hart's `monitor`: on a
bare-metal host it sits below the kernel on the host's own harts, in a VM below the guest kernel on the vCPUs'
architectural state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.bits import MASK64
from engine.isa.csrs import DELEGABLE_EXCEPTIONS, HYPERVISOR_EXCEPTIONS, SUPERVISOR_INTERRUPTS, EnvironmentBits
from engine.machine import sbi
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE
from engine.machine.privileged import SUPERVISOR
from engine.trace.record import Action, Cause, Interrupt

if TYPE_CHECKING:
    from engine.machine.board import Board

A0, A7 = 10, 17
_FAILED_STATUS = 1


class Firmware:
    """Implements `sbi.Platform` for a board. `last` is what the latest trap was about: (action, a, b). `steal_records`:
    where harts want to read how much of their time was stolen."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.suspended: set[int] = set()
        self.steal_records: dict[int, int] = {}
        self.last: tuple[Action, int, int] = (Action.SBI_CALL, 0, 0)

    # -- monitor -------------------------------------------------------------------------------------
    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:
        if not interrupt and cause == Cause.ECALL_S:
            self.call(hart)
            return
        hart.enter_trap(SUPERVISOR, cause, value, interrupt)
        self.last = (Action.INJECT_EXCEPTION, cause, hart.pc)

    def call(self, hart: Hart) -> None:
        """An SBI call. The hart goes on after the ecall."""
        arguments = list(hart.x[A0 : A7 + 1])
        hart.pc += 4
        self.last = (Action.SBI_CALL, arguments[7], arguments[6])
        answer = sbi.call(self, hart.number, arguments)
        if answer is not None:
            hart.x[A0] = answer.error
            if answer.value is not None:
                hart.x[A0 + 1] = answer.value

    # -- sbi.Platform --------------------------------------------------------------------------------
    @property
    def hart_count(self) -> int:
        return len(self.board.harts)

    @property
    def hypervisor(self) -> bool:
        return bool(self.board.harts[0].hypervisor)

    def machine_ids(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def set_timer(self, hart: int, ticks: int) -> None:
        """As OpenSBI does where there is Sstc: the supervisor's own comparator, so that the interrupt needs nobody."""
        state = self.board.harts[hart]
        state.stimecmp = ticks & MASK64
        state.timer_changed()

    def send_ipi(self, mask: int) -> None:
        for hart in self.board.harts:
            if mask >> hart.number & 1:
                hart.raise_software(Interrupt.SUPERVISOR_SOFTWARE)
                self.board.owner.wake(hart.number)

    def remote_fence_i(self, mask: int) -> None:
        """Decoded instructions are coherent on every hart."""

    def remote_fence(self, mask: int, start: int, size: int, asid: int | None) -> None:
        """Translations are coherent on every hart."""

    def hart_start(self, hart: int, address: int, opaque: int) -> int:
        if not self._executable(address):
            return sbi.Error.INVALID_ADDRESS
        self._enter(self.board.harts[hart], address, opaque)
        self.board.owner.wake(hart)
        return sbi.Error.SUCCESS

    def _enter(self, hart: Hart, address: int, opaque: int) -> None:
        hart.pc = address
        hart.x[A0], hart.x[A0 + 1] = hart.number, opaque
        hart.satp = 0
        prepare_supervisor(hart)
        hart.stopped = hart.waiting = False

    def _executable(self, address: int) -> bool:
        return address % 4 == 0 and RAM_BASE <= address <= RAM_BASE + self.board.ram.size - 4

    def hart_stop(self, hart: int) -> None:
        self.board.harts[hart].stopped = True
        self.board.harts[hart].limit = 0

    def hart_status(self, hart: int) -> sbi.HartState:
        state = self.board.harts[hart]
        if state.stopped:
            return sbi.HartState.STOPPED
        return sbi.HartState.SUSPENDED if state.waiting and hart in self.suspended else sbi.HartState.STARTED

    def hart_suspend(self, hart: int) -> None:
        self.suspended.add(hart)
        self.board.harts[hart].waiting = True
        self.board.harts[hart].limit = 0

    def hart_suspend_and_resume(self, hart: int, address: int, opaque: int) -> int:
        if not self._executable(address):
            return sbi.Error.INVALID_ADDRESS
        self._enter(self.board.harts[hart], address, opaque)
        self.hart_suspend(hart)
        return sbi.Error.SUCCESS

    def system_reset(self, kind: int, reason: int) -> None:
        if kind == sbi.ResetType.SHUTDOWN:
            self.board.owner.finish(_FAILED_STATUS if reason else 0)
        else:
            self.board.owner.reboot()

    def console_write(self, data: bytes) -> None:
        self.board.print_serial(data)

    def console_read(self, length: int) -> bytes:
        return self.board.uart.take(length)

    @property
    def tells_stolen(self) -> bool:
        return self.board.owner.stolen(0) is not None

    def set_steal_record(self, hart: int, address: int | None) -> int:
        self.steal_records.pop(hart, None)
        if address is None:
            return sbi.Error.SUCCESS
        if not self.write_memory(address, bytes(sbi.StealRecord.SIZE)):
            return sbi.Error.INVALID_ADDRESS
        self.steal_records[hart] = address
        self.tell_stolen(hart)
        return sbi.Error.SUCCESS

    def tell_stolen(self, hart: int) -> None:
        """Bring the hart's record up to date. The sequence is even: nobody sees it half written."""
        address = self.steal_records.get(hart)
        if address is not None:
            sequence, _, _ = sbi.StealRecord.LAYOUT.unpack(self.board.ram.read(address, sbi.StealRecord.LAYOUT.size))
            stolen = self.board.owner.stolen(hart) or 0
            self.board.ram.write(address, sbi.StealRecord.LAYOUT.pack((sequence | 1) + 1 & 0xFFFFFFFF, 0, stolen))

    def read_memory(self, address: int, length: int) -> bytes | None:
        return self.board.ram.read(address, length) if self._within(address, length) else None

    def write_memory(self, address: int, data: bytes) -> bool:
        if not self._within(address, len(data)):
            return False
        self.board.ram.write(address, data)
        return True

    def _within(self, address: int, length: int) -> bool:
        return address >= RAM_BASE and address + length <= RAM_BASE + self.board.ram.size

    # -- state ---------------------------------------------------------------------------------------
    def save(self) -> dict[str, Any]:
        return {"suspended": sorted(self.suspended), "steal_records": sorted(self.steal_records.items())}

    def load(self, state: dict[str, Any]) -> None:
        self.suspended = set(state["suspended"])
        self.steal_records = dict(state.get("steal_records", ()))


def prepare_supervisor(hart: Hart) -> None:
    """What firmware leaves behind when it hands a hart to a supervisor: everything delegated but its own calls,
    counters open, the supervisor's own timer and page-based memory types switched on."""
    hart.medeleg = DELEGABLE_EXCEPTIONS & ~(1 << Cause.ECALL_S) | (HYPERVISOR_EXCEPTIONS if hart.hypervisor else 0)
    hart.mideleg |= SUPERVISOR_INTERRUPTS
    hart.mcounteren = hart.scounteren = 7
    hart.menvcfg |= EnvironmentBits.STCE | EnvironmentBits.PBMTE
    hart.privilege = SUPERVISOR
    hart.refresh()
