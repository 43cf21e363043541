"""Host stacks: who the hypervisor is, how it is layered, and which stations each class of exit passes there.

    bare-metal   the guest has the machine to itself
    xen          type 1; a driver domain owns the devices: event channel -> its kernel -> its device model, and back
    kvm          type 1; the hypervisor is a module of the host's kernel, devices are a process's, or the kernel's own
    vmware       type 2; a VMM beside the host's kernel: for devices and the host's interrupts it switches worlds
    parallels    type 2; the VMM is a process: all but memory and timers goes through the host kernel's framework to it
    cloud        a thin type 1; devices are cards of their own, which a guest reaches without an exit

Who is on the way is data here; what it costs is in costs. A type 2 host has processes of its own, see host. A host's
configuration names a stack, a technique and switches.

Invariants: `Configuration.of` is the only way to a valid one; its technique is None exactly on bare metal, its switches
are sorted and each means something there. A technique that exists is a row of `vm_guest.TECHNIQUES`, a switch a row of
SWITCHES.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Self, get_args

from msgspec import Struct

from engine.commands import LabError, SchedulerId, StackId, SwitchId, TechniqueId
from engine.trace.record import Action, Level, Path

BARE_METAL: StackId = "bare-metal"
EVERY_TECHNIQUE: tuple[TechniqueId, ...] = get_args(TechniqueId)


class Exit(enum.IntEnum):
    """Classes of exits, by what has to be done about them."""

    PRIVILEGED = 0  # an instruction to emulate, or a trap to hand back to the guest
    FILL = 1  # memory to map
    HYPERCALL = 2
    TIMER = 3  # the host's timer: a time slice, the guest's own timer, an interrupt to deliver
    DEVICE = 4  # a register of a device
    KERNEL_DEVICE = 5  # of a device that a host kernel can serve: interrupt controllers, timers, virtio


_OTHERS: Mapping[Action, Exit] = {
    Action.SHADOW_FILL: Exit.FILL, Action.SECOND_STAGE_FILL: Exit.FILL, Action.DIRTY: Exit.FILL,
    Action.COPY_ON_WRITE: Exit.FILL, Action.SBI_CALL: Exit.HYPERCALL, Action.TIMER: Exit.TIMER,
    Action.PREEMPT: Exit.TIMER, Action.INJECT_INTERRUPT: Exit.TIMER, Action.HYPERCALL: Exit.HYPERCALL,
    Action.MULTICALL: Exit.HYPERCALL, Action.HYPERCALL_RETURN: Exit.HYPERCALL, Action.BLOCK: Exit.HYPERCALL,
    Action.UPCALL: Exit.TIMER, Action.DIRECT_FILL: Exit.FILL, Action.LOG_DIRTY: Exit.FILL,
    Action.REMOTE_FETCH: Exit.FILL, Action.SWAP_IN: Exit.FILL,
}  # fmt: skip


#: The class of an exit that no device took part in, from what was done.
EXIT_CLASSES: Mapping[Action, Exit] = {action: _OTHERS.get(action, Exit.PRIVILEGED) for action in Action}


@cache
def in_kernel(device: str) -> bool:
    """Is this a device that `in-kernel-devices` moves into the host's kernel? (As KVM's irqchip, and vhost.)"""
    return device in ("clint", "plic") or device.startswith("virtio-")


def switches_worlds(path: Path) -> bool:
    """Does it lead from a VMM into a host's kernel that runs in an address space and a world of its own?"""
    return (Level.HYPERVISOR, Level.HOST_KERNEL) in pairwise(path)


_H, _K, _D, _DOMAIN = Level.HYPERVISOR, Level.HOST_KERNEL, Level.DEVICE_MODEL, Level.DRIVER_DOMAIN


@dataclass(frozen=True)
class Stack:
    """`hypervisor_type`: 1 on the hardware itself, 2 on a host's operating system, None: no hypervisor. `techniques`
    that it can use; the first is what it uses unless somebody chooses. An exit passes the stations of `routes`, or
    `handler` if its class is not there. `hosted`: a guest's exits enter a host's kernel. `scheduler`:
    who gets the harts unless somebody chooses; a host's kernel runs vCPUs as it runs any thread."""

    hypervisor_type: int | None
    techniques: tuple[TechniqueId, ...]
    handler: Path = ()
    routes: Mapping[Exit, Path] = field(default_factory=dict)
    hosted: bool = False
    scheduler: SchedulerId = "fair-share"


def _preferring(technique: TechniqueId) -> tuple[TechniqueId, ...]:
    return (technique, *(other for other in EVERY_TECHNIQUE if other != technique))


def _devices(*route: Level) -> dict[Exit, Path]:
    return {Exit.DEVICE: route, Exit.KERNEL_DEVICE: route}


STACKS: dict[StackId, Stack] = {
    BARE_METAL: Stack(None, ()),
    "xen": Stack(1, _preferring("hardware-assist"), (_H,), _devices(_H, _DOMAIN, _D, _DOMAIN, _H), scheduler="credit"),
    "kvm": Stack(1, _preferring("hardware-assist"), (_H,), _devices(_H, _D, _H), hosted=True),
    "vmware": Stack(
        2, _preferring("binary-translation"), (_H,), _devices(_H, _K, _D, _K, _H) | {Exit.TIMER: (_H, _K, _H)}
    ),
    "parallels": Stack(
        2, _preferring("hardware-assist"), (_K, Level.VMM, _K), {Exit.FILL: (_K,), Exit.TIMER: (_K,)}, hosted=True
    ),
    # Devices passed through need an IOMMU, which came after hardware assist.
    "cloud": Stack(1, ("hardware-assist",), (_H,), _devices(Level.HARDWARE), scheduler="credit"),
}
HYPERVISORS: tuple[StackId, ...] = tuple(name for name in STACKS if name != BARE_METAL)


@dataclass(frozen=True)
class Switch:
    """Something that a host's hardware has or lacks, or that its hypervisor does differently. It means something on
    `stacks`, and under `techniques` where there is a hypervisor."""

    stacks: tuple[StackId, ...] = HYPERVISORS
    techniques: tuple[TechniqueId, ...] = EVERY_TECHNIQUE


#: Its harts let some sensitive instructions pass silently in user mode (engine.isa.silent).
SILENT_SENSITIVE: SwitchId = "silent-sensitive"
#: What earlier generations of hardware assist lack: the second stage of translation, tags in the TLB that tell guests and
#: host apart, and interrupts that reach a guest by themselves.
SHADOW_PAGING: SwitchId = "shadow-paging"
NO_VMID: SwitchId = "no-vmid"
NO_DIRECT_INTERRUPTS: SwitchId = "no-direct-interrupts"
#: Devices of `in_kernel` are the kernel module's.
IN_KERNEL_DEVICES: SwitchId = "in-kernel-devices"

SWITCHES: dict[SwitchId, Switch] = {
    IN_KERNEL_DEVICES: Switch(stacks=("kvm",)),
    SILENT_SENSITIVE: Switch(stacks=tuple(STACKS)),
    SHADOW_PAGING: Switch(techniques=("hardware-assist",)),
    NO_VMID: Switch(techniques=("hardware-assist",)),
    NO_DIRECT_INTERRUPTS: Switch(techniques=("hardware-assist",)),
}

#: The switches of each generation of hardware assist, first to latest. On x86: Intel VT-x of 2005; EPT and VPID of 2008;
#: APICv of 2013 and posted interrupts.
GENERATIONS: tuple[tuple[SwitchId, ...], ...] = (
    (SHADOW_PAGING, NO_VMID, NO_DIRECT_INTERRUPTS),
    (NO_DIRECT_INTERRUPTS,),
    (),
)


class Configuration(Struct, frozen=True):
    """What a host is; see the module. As text: `stack/technique+switch+switch`."""

    stack: StackId
    technique: TechniqueId | None
    switches: tuple[SwitchId, ...] = ()

    @classmethod
    def of(
        cls,
        stack: StackId | None = None,
        technique: TechniqueId | None = None,
        switches: tuple[SwitchId, ...] = (),
    ) -> Self:
        """technique None: the stack's own. stack None: kvm, and trap-and-emulate on it, which shows most, unless a
        technique is named. Raises LabError when they do not go together."""
        if stack is None:
            stack, technique = DEFAULT_STACK, technique or DEFAULT_TECHNIQUE
        able = STACKS[stack].techniques
        if technique is None and able:
            technique = able[0]
        if technique is not None and technique not in able:
            raise LabError(
                "technique-not-on-stack",
                f"The stack {stack} does not virtualize by {technique}.",
                stack=stack,
                technique=technique,
            )
        for name in switches:
            switch = SWITCHES.get(name)
            if switch is None:
                there = ", ".join(SWITCHES)
                raise LabError(
                    "no-such-switch",
                    f"No host has a switch {name!r}. There are: {there}.",
                    switch=name,
                    there=there,
                )
            if stack not in switch.stacks or technique not in (None, *switch.techniques):
                raise LabError(
                    "switch-without-effect",
                    f"The switch {name} means nothing on {stack}" + (f" with {technique}." if technique else "."),
                    switch=name,
                    stack=stack,
                    technique=technique or "",
                )
        return cls(stack, technique, tuple(sorted(set(switches))))

    def with_switches(self, switches: tuple[SwitchId, ...]) -> Self:
        """The same with these switches instead. Raises LabError."""
        return self.of(self.stack, self.technique, switches)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The configuration of a text: `xen`, `hardware-assist` (on kvm), `vmware/hardware-assist+no-vmid`.
        Raises LabError."""
        head, *switches = text.split("+")
        first, slash, second = head.partition("/")
        stack = next((name for name in STACKS if name == first), None)
        wanted = second if stack and (second or not slash) else head
        technique = next((name for name in EVERY_TECHNIQUE if name == wanted), None)
        if (wanted and technique is None) or not (stack or technique):
            raise LabError(
                "no-such-configuration",
                f"{head!r} is no stack ({', '.join(STACKS)}), no technique ({', '.join(EVERY_TECHNIQUE)}) and no "
                "stack/technique.",
                text=head,
            )
        return cls.of(stack, technique, tuple(switches))

    def route(self, kind: Exit) -> Path:
        """The stations that an exit of this class passes between leaving the guest and going on."""
        stack = STACKS[self.stack]
        if kind == Exit.KERNEL_DEVICE and IN_KERNEL_DEVICES in self.switches:
            return stack.handler
        return stack.routes.get(kind, stack.handler)

    def __str__(self) -> str:
        technique = f"/{self.technique}" if self.technique else ""
        return "+".join((self.stack + technique, *self.switches))


DEFAULT_STACK: StackId = "kvm"
DEFAULT_TECHNIQUE: TechniqueId = "trap-and-emulate"

#: Stacks as they were named when each had one technique.
_FORMER: dict[str, tuple[StackId, TechniqueId]] = {
    "type1-trap-and-emulate": ("kvm", "trap-and-emulate"),
    "type1-hardware-assist": ("kvm", "hardware-assist"),
}
#: A byte string that any former name brings along.
FORMER_MARK = b"type1-"


def migrated(tree: Any) -> Any:
    """Rows, edits and commands as maps and lists, with today's names for stacks."""
    if isinstance(tree, list):
        return [migrated(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    former = _FORMER.get(stack) if isinstance(stack := tree.get("stack"), str) else None
    renamed = {} if former is None else {"stack": former[0], "technique": former[1]}
    return {key: migrated(item) for key, item in tree.items()} | renamed
