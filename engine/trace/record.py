"""The trace record and its vocabulary: the one definition from which the engine writes and the page draws.

A record is written when, and only when, a guest's instruction stream was really interrupted: a trap on a
bare-metal host, or a VM exit under a hypervisor. Levels are the stations a trap passes; a path is the ordered
list of stations from the trapping instruction to whoever handled it and back to where execution resumes.

The browser receives records as raw bytes in this layout together with `schema()`, so that no number in
these tables is typed a second time in JavaScript.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

RECORD = np.dtype(
    [
        ("sequence", "<u8"),  # 1, 2, 3 ... for each guest
        ("time", "<u8"),  # virtual time of the host at the trap, ns
        ("position", "<u8"),  # the lab's position (steps executed) at which the record was written
        ("pc", "<u8"),  # of the instruction that trapped, or that was about to run
        ("value", "<u8"),  # the architecture's tval
        ("a", "<u8"),  # first operand of the action
        ("b", "<u8"),  # second operand of the action
        ("executed", "<u4"),  # instructions this vCPU retired since its guest's previous record
        ("cost", "<u4"),  # modelled cycles of the switches on the path (0: nothing was modelled)
        ("instruction", "<u4"),  # encoding of the trapping instruction, 0 where there is none
        ("host", "<u2"),
        ("guest", "<u2"),
        ("vcpu", "u1"),
        ("kind", "u1"),
        ("cause", "u1"),  # mcause's code; bit 7 is its interrupt bit
        ("path", "u1"),
        ("disposition", "u1"),
        ("action", "u1"),
        ("from_level", "u1"),  # Level that trapped
        ("to_level", "u1"),  # Level that execution resumes in
    ]
)
INTERRUPT_BIT = 0x80


class Kind(enum.IntEnum):
    """What sort of event the trap was, seen from the guest."""

    VM_EXIT = 0  # a privileged instruction of a deprivileged kernel
    HYPERCALL = 1  # an ecall from a guest kernel (SBI)
    SYSCALL = 2  # an ecall from user code
    PAGE_FAULT = 3
    INTERRUPT = 4
    MMIO = 5
    EXCEPTION = 6  # any other synchronous exception
    JVM_CALL = 7


class Level(enum.IntEnum):
    """A station on a trap's path. `GROUPS` says whose colour it wears."""

    USER = 0
    KERNEL = 1
    KERNEL_DEPRIVILEGED = 2  # a guest kernel that runs in U mode without knowing it
    HYPERVISOR = 3
    DEVICE_MODEL = 4
    HOST_KERNEL = 5
    FIRMWARE = 6
    HARDWARE = 7
    DRIVER_DOMAIN = 8  # the kernel of the domain that owns the devices
    VMM = 9  # a virtual machine monitor that is a process of the host, with its device models


GROUPS = {
    Level.USER: "user",
    Level.KERNEL: "kernel",
    Level.KERNEL_DEPRIVILEGED: "kernel",
    Level.HYPERVISOR: "hypervisor",
    Level.DEVICE_MODEL: "user",
    Level.HOST_KERNEL: "kernel",
    Level.FIRMWARE: "hardware",
    Level.HARDWARE: "hardware",
    Level.DRIVER_DOMAIN: "kernel",
    Level.VMM: "user",
}


class Disposition(enum.IntEnum):
    """How the trap ended; its colour on the canvas."""

    HARDWARE = 0  # the hart delivered it, no hypervisor took part
    EMULATED = 1  # the hypervisor (or firmware) did what the guest asked for
    FORWARDED = 2  # a device model or the host did it
    INJECTED = 3  # handed back to the guest's own trap handler
    KILLED = 4  # the guest was ended


class Action(enum.IntEnum):
    """What the handler did, with the meaning of a record's operands `a` and `b`."""

    DELIVER = 0  # a: handler's pc, b: 0            (hardware vectored to the guest's handler)
    CSR_READ = 1  # a: CSR number, b: value read
    CSR_WRITE = 2  # a: CSR number, b: value written
    SRET = 3  # a: target pc, b: new privilege (0 user, 1 supervisor)
    MRET = 4  # a: target pc, b: new privilege
    WFI = 5  # a: virtual time at which the vCPU wakes (ns), 0: only an external event wakes it
    SFENCE = 6  # a: virtual address (0: all), b: shadow pages dropped
    SHADOW_FILL = 7  # a: guest physical address, b: host physical address
    INJECT_EXCEPTION = 8  # a: cause, b: handler's pc
    INJECT_INTERRUPT = 9  # a: cause (without the interrupt bit), b: handler's pc
    MMIO_READ = 10  # a: guest physical address, b: value
    MMIO_WRITE = 11  # a: guest physical address, b: value
    SBI_CALL = 12  # a: extension id, b: function id
    PAGE_TABLE_WRITE = 13  # a: guest physical address, b: value
    TIMER = 14  # a: 1; the guest masks the timer that is due, so it waits
    PREEMPT = 15  # a: the guest that runs next; 0: a process of the host; the time slice was over
    KILL = 16  # a: index into FAILURES
    SHUTDOWN = 17  # a: the guest's exit status
    ADDRESS_SPACE = 18  # satp written. a: new satp, b: 1 when its shadow tables were still there
    DIRTY = 19  # first write to a clean page: a: guest physical address, b: host physical address
    EMULATE = 20  # a: 0; the hypervisor interpreted an instruction of no other row
    SECOND_STAGE_FILL = 21  # a: guest physical address, b: host physical address
    COPY_ON_WRITE = 22  # first write to a page shared with a clone: a: guest physical address, b: host physical
    HYPERCALL = 23  # a: the call's number, b: its first argument
    MULTICALL = 24  # a: calls that it carried, b: how many of them were refused
    HYPERCALL_RETURN = 25  # back to where the kernel was entered from. a: pc, b: calls that it carried
    UPCALL = 26  # a: pending events, by their bits, b: handler's pc
    DIRECT_FILL = 27  # a page that comes when it is touched: a: guest physical address, b: host physical address
    BLOCK = 28  # a hypercall. a: virtual time at which the vCPU wakes (ns), 0: only an external event wakes it
    TRANSLATE = 29  # binary translation: a: guest pc of the new block, b: guest instructions in it
    CHAIN = 30  # the next time execution goes on without the VMM. a: guest pc where to, b: host address there
    RETRANSLATE = 31  # a store that faulted often is a call-out now. a: guest physical address, b: value
    CODE_WRITE = 32  # a store to guest code of which there are translations: a: guest physical address, b: value
    LOG_DIRTY = 33  # first write since a migration copied the page: a: guest physical address, b: host physical
    REMOTE_FETCH = 34  # a page that a post-copy migration had left behind: a: guest physical address, b: host physical
    SHARE = 35  # pages equal to others were found. a: pages of this guest that have others' frames now, b: frames freed
    SWAP_OUT = 36  # the host wrote pages of this guest to its swap device. a: how many, b: all that are there now
    SWAP_IN = 37  # and read one that the guest faulted on. a: guest physical address, b: host physical address
    BALLOON_INFLATE = 38  # the guest's driver gave pages away. a: how many, b: those that had content, which is gone
    BALLOON_DEFLATE = 39  # and took some back. a: how many


Path = tuple[Level, ...]

#: What lies between the level that trapped and where execution resumes, where somebody below a guest takes part.
ROUTES: tuple[Path, ...] = (
    (Level.HYPERVISOR,),
    (Level.HYPERVISOR, Level.DEVICE_MODEL, Level.HYPERVISOR),
    (Level.HYPERVISOR, Level.DRIVER_DOMAIN, Level.DEVICE_MODEL, Level.DRIVER_DOMAIN, Level.HYPERVISOR),
    (Level.HYPERVISOR, Level.HOST_KERNEL, Level.HYPERVISOR),
    (Level.HYPERVISOR, Level.HOST_KERNEL, Level.DEVICE_MODEL, Level.HOST_KERNEL, Level.HYPERVISOR),
    (Level.HOST_KERNEL,),
    (Level.HOST_KERNEL, Level.VMM, Level.HOST_KERNEL),
    (Level.HARDWARE,),
)


def outward(route: Path) -> Path:
    """As far as whoever handles it: all there is of a path from which the guest does not come back."""
    return route[: len(route) // 2 + 1]


def _of_routes() -> list[Path]:
    ends = [(Level.USER, Level.USER)]
    for kernel in (Level.KERNEL_DEPRIVILEGED, Level.KERNEL):
        ends += [(kernel, kernel), (kernel, Level.USER), (Level.USER, kernel)]
    there = [(origin, *route, to) for route in ROUTES for origin, to in ends]
    return there + [(origin, *outward(route)) for route in ROUTES for origin, _ in ends]


#: The first paths, whose ids are in saved records.
_FIRST_PATHS: tuple[Path, ...] = (
    (Level.USER, Level.HARDWARE, Level.KERNEL),
    (Level.KERNEL, Level.HARDWARE, Level.KERNEL),
    (Level.KERNEL, Level.FIRMWARE, Level.KERNEL),
    (Level.USER, Level.FIRMWARE, Level.KERNEL),
    (Level.USER, Level.FIRMWARE, Level.USER),
    (Level.FIRMWARE, Level.HARDWARE, Level.FIRMWARE),
    (Level.KERNEL, Level.HARDWARE, Level.FIRMWARE),
    (Level.USER, Level.HARDWARE, Level.FIRMWARE),
    (Level.KERNEL_DEPRIVILEGED, Level.HYPERVISOR, Level.KERNEL_DEPRIVILEGED),
    (Level.KERNEL_DEPRIVILEGED, Level.HYPERVISOR, Level.USER),
    (Level.USER, Level.HYPERVISOR, Level.KERNEL_DEPRIVILEGED),
    (Level.USER, Level.HYPERVISOR, Level.USER),
    (
        Level.KERNEL_DEPRIVILEGED,
        Level.HYPERVISOR,
        Level.DEVICE_MODEL,
        Level.HYPERVISOR,
        Level.KERNEL_DEPRIVILEGED,
    ),
    (Level.USER, Level.HYPERVISOR, Level.DEVICE_MODEL, Level.HYPERVISOR, Level.USER),
    (Level.KERNEL_DEPRIVILEGED, Level.HYPERVISOR),
    (Level.USER, Level.HYPERVISOR),
    (Level.KERNEL, Level.FIRMWARE),
    (Level.USER, Level.FIRMWARE),
    (Level.FIRMWARE, Level.HARDWARE),
    (Level.KERNEL, Level.HYPERVISOR, Level.KERNEL),
    (Level.USER, Level.HYPERVISOR, Level.KERNEL),
    (Level.KERNEL, Level.HYPERVISOR, Level.DEVICE_MODEL, Level.HYPERVISOR, Level.KERNEL),
    (Level.KERNEL, Level.HYPERVISOR),
    (Level.KERNEL_DEPRIVILEGED, Level.HYPERVISOR, Level.DEVICE_MODEL, Level.HYPERVISOR, Level.USER),
)
#: Paths by id. A record stores the index. Every path begins at the level that trapped.
PATHS: tuple[Path, ...] = tuple(dict.fromkeys([*_FIRST_PATHS, *_of_routes()]))
PATH_IDS = {path: index for index, path in enumerate(PATHS)}

#: Why a guest was ended by the engine; the page's catalogue has a sentence for each key.
FAILURES: tuple[str, ...] = (
    "guest-failed",  # the guest reported failure itself (finisher, SBI reset, tohost)
    "trap-loop",  # a trap handler that faults at once, for ever (a double fault)
    "jump-to-nowhere",  # fetches from an address where there is no memory
    "no-trap-handler",  # a trap with stvec at an address that cannot be fetched
    "bad-image",
    "out-of-memory",
    "page-tables-broken",  # of a paravirtual guest: something else than its kernel wrote to them
)


class Cause(enum.IntEnum):
    """Synchronous exception codes of mcause and scause (privileged specification 1.12, tables 3.6 and 8.8)."""

    INSTRUCTION_MISALIGNED = 0
    INSTRUCTION_ACCESS_FAULT = 1
    ILLEGAL_INSTRUCTION = 2
    BREAKPOINT = 3
    LOAD_MISALIGNED = 4
    LOAD_ACCESS_FAULT = 5
    STORE_MISALIGNED = 6
    STORE_ACCESS_FAULT = 7
    ECALL_U = 8
    ECALL_S = 9
    ECALL_VS = 10
    ECALL_M = 11
    INSTRUCTION_PAGE_FAULT = 12
    LOAD_PAGE_FAULT = 13
    STORE_PAGE_FAULT = 15
    INSTRUCTION_GUEST_PAGE_FAULT = 20
    LOAD_GUEST_PAGE_FAULT = 21
    VIRTUAL_INSTRUCTION = 22
    STORE_GUEST_PAGE_FAULT = 23


class Interrupt(enum.IntEnum):
    """Interrupt codes: mcause without its interrupt bit, and bit numbers in mip and mie."""

    SUPERVISOR_SOFTWARE = 1
    VIRTUAL_SUPERVISOR_SOFTWARE = 2
    MACHINE_SOFTWARE = 3
    SUPERVISOR_TIMER = 5
    VIRTUAL_SUPERVISOR_TIMER = 6
    MACHINE_TIMER = 7
    SUPERVISOR_EXTERNAL = 9
    VIRTUAL_SUPERVISOR_EXTERNAL = 10
    MACHINE_EXTERNAL = 11


CAUSE_TEXTS: dict[int, str] = {
    Cause.INSTRUCTION_MISALIGNED: "instruction address misaligned",
    Cause.INSTRUCTION_ACCESS_FAULT: "instruction access fault",
    Cause.ILLEGAL_INSTRUCTION: "illegal instruction",
    Cause.BREAKPOINT: "breakpoint",
    Cause.LOAD_MISALIGNED: "load address misaligned",
    Cause.LOAD_ACCESS_FAULT: "load access fault",
    Cause.STORE_MISALIGNED: "store/AMO address misaligned",
    Cause.STORE_ACCESS_FAULT: "store/AMO access fault",
    Cause.ECALL_U: "environment call from U-mode",
    Cause.ECALL_S: "environment call from S-mode",
    Cause.ECALL_VS: "environment call from VS-mode",
    Cause.ECALL_M: "environment call from M-mode",
    Cause.INSTRUCTION_PAGE_FAULT: "instruction page fault",
    Cause.LOAD_PAGE_FAULT: "load page fault",
    Cause.STORE_PAGE_FAULT: "store/AMO page fault",
    Cause.INSTRUCTION_GUEST_PAGE_FAULT: "instruction guest-page fault",
    Cause.LOAD_GUEST_PAGE_FAULT: "load guest-page fault",
    Cause.VIRTUAL_INSTRUCTION: "virtual instruction",
    Cause.STORE_GUEST_PAGE_FAULT: "store/AMO guest-page fault",
    **{INTERRUPT_BIT | i: f"{i.name.lower().replace('_', ' ')} interrupt" for i in Interrupt},
}


def cause_name(cause: int) -> str:
    """The manual's name of a record's `cause` byte."""
    return CAUSE_TEXTS.get(cause, f"reserved cause {cause}")


def schema() -> dict[str, Any]:
    """Everything a reader of raw records needs, as plain data: field offsets and every enumeration."""
    fields = RECORD.fields
    assert fields is not None
    return {
        "size": RECORD.itemsize,
        "fields": {name: [int(fields[name][1]), fields[name][0].itemsize] for name in RECORD.names or ()},
        "kinds": [kind.name.lower() for kind in Kind],
        "levels": [{"name": level.name.lower(), "group": GROUPS[level]} for level in Level],
        "dispositions": [disposition.name.lower() for disposition in Disposition],
        "actions": [action.name.lower() for action in Action],
        "paths": [[int(level) for level in path] for path in PATHS],
        "failures": list(FAILURES),
        "causes": {str(int(cause)): text for cause, text in CAUSE_TEXTS.items()},
    }
