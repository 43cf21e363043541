"""What a virtualization technique is: the interface behind which one file holds each.

A technique runs the vCPUs of one VM on host harts. While a vCPU is loaded, the technique is the hart's
`monitor`: every trap that the hardware does not deliver to the guest by itself comes to `trap` as a VM exit.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.hypervisor.vm import VCpu
from engine.machine.hart import Hart
from engine.trace.record import Action, Disposition, Kind


class Outcome(NamedTuple):
    """What an exit came to."""

    kind: Kind
    disposition: Disposition
    action: Action
    a: int = 0
    b: int = 0
    device: bool = False  # a device model took part


class Technique(Protocol):
    """Each method leaves the hart ready to go on, or asks it to `leave` when the vCPU cannot."""

    def enter(self, vcpu: VCpu, hart: Hart) -> None:
        """Put a vCPU onto a hart. Raises OutOfFramesError when the host has no memory for it."""
        ...

    def leave(self, vcpu: VCpu) -> None:
        """Take the vCPU off its hart."""
        ...

    def trap(self, hart: Hart, cause: int, value: int, interrupt: bool) -> None:
        """A VM exit at hart.pc: handle it and write its record."""
        ...

    def timer(self, vcpu: VCpu, preempted_by: int | None) -> None:
        """The host's timer interrupted the guest: its own timer is due, or (`preempted_by`: next guest) its
        slice is over."""
        ...

    def inject_pending(self, vcpu: VCpu) -> bool:
        """Deliver an interrupt that became pending while the VMM had the hart. False: there was none."""
        ...
