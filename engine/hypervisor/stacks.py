"""Host stacks: who the hypervisor is and how it is layered. A host's configuration names one, with a technique and
switches.

Invariants: `Configuration.of` is the only way to a valid one; its technique is None exactly on bare metal, its switches
are sorted and each means something there. A technique that exists is a row of `vm_guest.TECHNIQUES`, a switch a row of
SWITCHES.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, get_args

from msgspec import Struct

from engine.commands import LabError, StackId, SwitchId, TechniqueId

BARE_METAL: StackId = "bare-metal"
EVERY_TECHNIQUE: tuple[TechniqueId, ...] = get_args(TechniqueId)


@dataclass(frozen=True)
class Stack:
    """`hypervisor_type`: 1 on the hardware itself, 2 on a host's operating system, None: no hypervisor. `techniques`
    that it can use; the first is what it uses unless somebody chooses."""

    hypervisor_type: int | None
    techniques: tuple[TechniqueId, ...]


def _preferring(technique: TechniqueId) -> tuple[TechniqueId, ...]:
    return (technique, *(other for other in EVERY_TECHNIQUE if other != technique))


STACKS: dict[StackId, Stack] = {
    BARE_METAL: Stack(None, ()),
    "xen": Stack(1, _preferring("hardware-assist")),
    "kvm": Stack(1, _preferring("hardware-assist")),
    "vmware": Stack(2, _preferring("trap-and-emulate")),
    "parallels": Stack(2, _preferring("hardware-assist")),
    "cloud": Stack(1, ("hardware-assist",)),  # devices passed through need an IOMMU of that age
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

SWITCHES: dict[SwitchId, Switch] = {
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
                raise LabError("no-such-switch", f"No host has a switch {name}.", switch=name)
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
        first, _, second = head.partition("/")
        stack = next((name for name in STACKS if name == first), None)
        wanted = second if stack else head
        technique = next((name for name in EVERY_TECHNIQUE if name == wanted), None)
        if (wanted and technique is None) or not (stack or technique):
            raise LabError(
                "no-such-configuration",
                f"{head!r} is no stack ({', '.join(STACKS)}), no technique ({', '.join(EVERY_TECHNIQUE)}) and no "
                "stack/technique.",
                text=head,
            )
        return cls.of(stack, technique, tuple(switches))

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
