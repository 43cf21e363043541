"""What a virtualization technique is: the interface behind which one file holds each.

A technique runs the vCPUs of one VM on host harts. While a vCPU is loaded, the technique is the hart's
`monitor`: every trap that the hardware does not deliver to the guest by itself comes to `trap` as a VM exit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from msgspec import Struct

from engine.commands import Problem
from engine.hypervisor.vm import GuestRam, VCpu
from engine.machine.hart import Hart
from engine.machine.mmu import RecordedWalk, Tables
from engine.trace.record import Action, Disposition, Kind, Level

if TYPE_CHECKING:
    from engine.hypervisor.vm_guest import VmGuest


class Outcome(Struct, frozen=True, gc=False):
    """What an exit came to."""

    kind: Kind
    disposition: Disposition
    action: Action
    a: int = 0
    b: int = 0
    device: bool = False  # a device model took part


def refuse_paravirtual() -> Problem:
    """Why a technique that pretends to be the machine cannot run a paravirtual kernel."""
    return Problem(
        "paravirtual-kernel",
        "The guest's kernel is made for paravirtualization: it makes hypercalls, which nobody answers here.",
        {},
    )


def claim(ram: GuestRam, page: int, stores: bool) -> tuple[int, Action | None]:
    """The frame behind a guest page that the guest faulted on, its own if it is about to store there; and what that
    took, if it was more than a look. Raises OutOfFramesError."""
    before = ram.map.owned(page) if stores else ram.map.frame(page)
    if before is not None:
        return before, None
    if not ram.away and ram.map.frame(page) is None and page not in ram.clean:
        return ram.frame(page), None
    brought = Action.REMOTE_FETCH if page in ram.absent else Action.SWAP_IN if page in ram.swapped else None
    logged, before = page in ram.clean, ram.map.frame(page)
    if not stores:
        return ram.frame(page), brought
    frame = ram.own(page)
    if brought is not None or logged:
        return frame, brought or Action.LOG_DIRTY
    return frame, None if before in (None, frame) else Action.COPY_ON_WRITE


class Technique(Protocol):
    """Each method leaves the hart ready to go on, or asks it to `leave` when the vCPU cannot. `kernel_level`: where
    the guest's kernel runs. `hypervisor_extension`: do the harts of its hosts have the H extension? `names_frames`: do
    the tables in use lead back from a frame to the one page of the VM that has it?"""

    kernel_level: Level
    hypervisor_extension: bool
    names_frames: bool

    @classmethod
    def of(cls, guest: VmGuest) -> Self:
        """The technique for one VM, whose memory is there."""
        ...

    @staticmethod
    def refuses(machine_mode: bool, paravirtual: bool) -> Problem | None:
        """Why it cannot run a guest that is, or is not, in machine mode, and a paravirtual kernel; None: it can."""
        ...

    def enter(self, vcpu: VCpu, hart: Hart) -> None:
        """Put a vCPU onto a hart. Raises OutOfFramesError when the host has no memory for it."""
        ...

    def leave(self, vcpu: VCpu) -> None:
        """Take the vCPU off its hart."""
        ...

    def catch_up(self, vcpu: VCpu) -> None:
        """Bring the virtual hart up to date, if the vCPU is on a hart. No guest can tell."""
        ...

    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:
        """A VM exit at hart.pc: handle it and write its record."""
        ...

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        """The clock has reached the guest's own timer, or (`preempted_by`: next guest) the end of its slice."""
        ...

    def wake(self, vcpu: VCpu) -> None:
        """An interrupt line of the vCPU or the board's clock changed."""
        ...

    def inject_pending(self, vcpu: VCpu) -> bool:
        """Deliver an interrupt that became pending while the VMM had the hart. False: there was none to deliver."""
        ...

    def host_walk(self, vcpu: VCpu, tables: Tables, address: int) -> tuple[RecordedWalk, int | None]:
        """The walk that the host's MMU does for a guest virtual address, and where it ends if it does."""
        ...

    def stored(self, address: int, length: int) -> None:
        """Guest physical [address, address + length) was written by the VMM on the guest's behalf."""
        ...

    def remapped(self, page: int) -> None:
        """A guest page has another frame now, or `GuestRam.writable` says something else of it."""
        ...

    def unmap(self, page: int) -> bool:
        """Nothing may lead to a guest page any more until somebody needs it again. Did anything? Never asked of a
        technique that `names_frames`."""
        ...

    def close(self) -> None:
        """The VM is gone: give the host's memory back."""
        ...

    def save(self) -> dict[str, Any]:
        """What the VMM knows besides what is in host memory."""
        ...

    def load(self, state: dict[str, Any]) -> None: ...
