"""What a paravirtual guest's kernel asks of its hypervisor: the calls, the page they share, events. The one table
from which the hypervisor dispatches, and from which the guests' C header (`python -m engine.hypervisor.hypercalls`)
and the README's reference are made.

A call is an `ecall` of the guest's kernel as the SBI specification (2.0, chapter 3) has it: a7 = EXTENSION, a6 = the
call's number, a0 and a1 its arguments; the answer is an error in a0 and a value in a1. The kernel asks the base
extension's probe for EXTENSION first: whatever runs below it answers that, so that it needs no privileged instruction
to find out that nobody is there. An `ecall` of user mode is never a hypercall: it goes to the kernel's trap entry.

Numbers, pages and entries are 64-bit words. Addresses are guest physical; frames of other guests have no name.

    page tables   are the guest's own, Sv39, at guest physical addresses. A root is pinned: from then on every page
                  that it leads to is a table, read-only to the guest, and changes by `set_entry` alone. The hypervisor
                  checks each entry once, when it is written, and keeps the hart's tables (the same ones with machine
                  addresses) in step, so that nothing has to be found out on a fault. An entry is refused that leads
                  outside the guest's memory, that lets user mode write to a table, or without A, or without D where
                  it has W. Megapages are for the kernel; there are no gigapages. PTE bits 8 and 9 are the guest's.
    user and      both run in U mode of the hart, on two sets of tables: user mode sees entries with U, the kernel sees
    kernel        all of them, and executes none with U. There is no SUM.
    a batch       is an array of {number, argument, argument, error}: many calls in one switch.
    events        are bits of a word in the shared page. One that is pending and not masked becomes an upcall: a trap
                  whose cause has the interrupt bit. Masking takes no call; unmasking takes one if something is pending.
    time          is the `time` counter, which the hart lets the guest read, plus time_offset; read time_version before
                  and after: if it differs, read again.
    rings         are pages through which a device's front end, the guest's, and its back end talk. What a request is
                  about lies in a page that the guest has granted: a word of the shared page's second half. Rings and
                  grants are engine.devices.paravirtual's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from engine.devices.paravirtual import block, console
from engine.devices.paravirtual.ring import GRANTS, READABLE, SLOTS, WRITABLE
from engine.machine import sbi
from engine.machine.loader import PARAVIRTUAL_NOTE
from engine.trace.record import INTERRUPT_BIT, Interrupt

#: In the range that SBI leaves for experiments (chapter 3.2), "PV".
EXTENSION = 0x08005056
VERSION = 1
BATCH_LIMIT = 64
CALL = struct.Struct("<4Q")
ALL = (1 << 64) - 1
#: scause of an upcall.
UPCALL = Interrupt.SUPERVISOR_EXTERNAL
UPCALL_CAUSE = 1 << 63 | UPCALL
assert INTERRUPT_BIT == 0x80


class Number(IntEnum):
    """The calls. Their meaning is in CALLS."""

    MULTICALL = 0
    RETURN = 1
    SHARE = 2
    SET_TRAP_ENTRY = 3
    PIN = 4
    UNPIN = 5
    SET_SPACE = 6
    SET_ENTRY = 7
    FLUSH = 8
    SET_TIMER = 9
    BLOCK = 10
    YIELD = 11
    DELIVER = 12
    CONNECT = 13
    NOTIFY = 14
    CONSOLE_WRITE = 15
    SHUTDOWN = 16


@dataclass(frozen=True)
class Call:
    """One call. batched: it may stand in a batch. `errors` are the names of sbi.Error that it can answer."""

    number: Number
    arguments: tuple[str, ...]
    meaning: str
    errors: tuple[sbi.Error, ...] = ()
    batched: bool = True


class Event(IntEnum):
    """Event channels, by their bits."""

    TIMER = 0
    CONSOLE = 1
    BLOCK = 2
    NET = 3


class Device(IntEnum):
    """What has a ring of its own."""

    CONSOLE = 0
    BLOCK = 1
    NET_SEND = 2
    NET_RECEIVE = 3



_PARAM, _ADDRESS, _DENIED, _FAILED = (
    sbi.Error.INVALID_PARAM, sbi.Error.INVALID_ADDRESS, sbi.Error.DENIED, sbi.Error.FAILED,
)  # fmt: skip

CALLS: tuple[Call, ...] = (
    Call(Number.MULTICALL, ("calls", "count"),
         f"do the calls of a batch of at most {BATCH_LIMIT}; each gets its own error, the value says how many got one",
         (_PARAM, _ADDRESS), batched=False),
    Call(Number.RETURN, ("calls", "count"),
         "do the calls of a batch, then go on where the shared page says (pc, sp, a0, a1, a6, a7, privilege), with "
         "upcalls off if `previous` says so; if one of the calls got an error, come back instead with their number",
         (_PARAM, _ADDRESS, _DENIED, _FAILED), batched=False),
    Call(Number.SHARE, ("page",), "share this page from now on", (_ADDRESS, _DENIED)),
    Call(Number.SET_TRAP_ENTRY, ("pc",),
         "traps and upcalls go there, with sp from the shared page's `stack`, and upcalls off", (_PARAM,)),
    Call(Number.PIN, ("root",), "check a page-table tree and make it one that spaces can have",
         (_ADDRESS, _PARAM, _DENIED, _FAILED)),
    Call(Number.UNPIN, ("root",), "these pages are ordinary memory again; not for the space in use", (_PARAM, _DENIED)),
    Call(Number.SET_SPACE, ("root",), "translate through this pinned root", (_PARAM,)),
    Call(Number.SET_ENTRY, ("entry", "value"), "write a page-table entry, checked if it stands in a table",
         (_ADDRESS, _PARAM, _DENIED, _FAILED)),
    Call(Number.FLUSH, ("page",), f"forget what the TLB has of this page, or of all ({-1}), in every space"),
    Call(Number.SET_TIMER, ("time",), "make the timer event pending once it is this late; until then it is not"),
    Call(Number.BLOCK, (), "sleep until an unmasked event is pending", batched=False),
    Call(Number.YIELD, (), "let another virtual CPU run", batched=False),
    Call(Number.DELIVER, (), "take the upcall that is pending now that upcalls are on", batched=False),
    Call(Number.CONNECT, ("device", "page"),
         "this page is the device's ring, set up and empty; the value is a disk's sectors, a network card's address",
         (_PARAM, _ADDRESS, _DENIED, _FAILED)),
    Call(Number.NOTIFY, ("device",), "look at the device's ring", (_PARAM, _FAILED)),
    Call(Number.CONSOLE_WRITE, ("address", "bytes"),
         "print, without a ring: at most 4096 bytes are taken, the value says how many", (_ADDRESS,)),
    Call(Number.SHUTDOWN, ("kind", "status"), "kind 0: end with this status; 1: start again", (_PARAM,), batched=False),
)  # fmt: skip
BY_NUMBER = {call.number.value: call for call in CALLS}
if len(BY_NUMBER) != len(CALLS):
    raise ValueError("two hypercalls have the same number")

#: Words of the shared page, in their order, and who writes them.
SHARED: tuple[tuple[str, str], ...] = (
    ("stack", "guest: sp at the next trap"),
    ("pc", "of the trapped code; where to go on"),
    ("sp", "likewise"),
    ("a0", "guest: of the code to go on with"),
    ("a1", "likewise"),
    ("a6", "likewise"),
    ("a7", "likewise"),
    ("cause", "hypervisor: scause of the trap"),
    ("value", "hypervisor: stval of the trap"),
    ("privilege", "of the trapped code: 0 user, 1 kernel; of the code to go on with"),
    ("previous", "upcalls_off before the trap; after the return"),
    ("upcalls_off", "not 0: events stay pending"),
    ("pending", "events, by their bits"),
    ("masked", "guest: events that do not count"),
    ("time_version", "hypervisor: grows with each change of time_offset"),
    ("time_offset", "hypervisor: what the time counter is to be added to, in ticks"),
)
WORD = {name: index for index, (name, _) in enumerate(SHARED)}

#: The console's ring: words, then two rings of bytes. Indices only grow; a place is the remainder.
CONSOLE_INPUT, CONSOLE_OUTPUT = console.INPUT, console.OUTPUT
CONSOLE_RING: tuple[str, ...] = ("out_produced", "out_consumed", "in_produced", "in_consumed")


def header() -> str:
    """The guests' C header."""
    lines = [
        "/* Made from engine/hypervisor/hypercalls.py, which says what all of this means:",
        " *     python -m engine.hypervisor.hypercalls > engine/guests/ringos/pv/hypercalls.h */",
        "#pragma once",
        "",
        f"#define PV_EXTENSION {EXTENSION:#010x}",
        f"#define PV_VERSION {VERSION}",
        f"#define PV_BATCH {BATCH_LIMIT}",
        f"#define PV_NOTE_TYPE {PARAVIRTUAL_NOTE[1]}",
        "",
    ]
    lines += [f"#define PV_{row.number.name} {row.number.value} /* {', '.join(row.arguments) or '-'} */" for row in CALLS]
    lines += ["", *(f"#define PV_EVENT_{event.name} {event.value}" for event in Event)]
    lines += ["", *(f"#define PV_DEVICE_{device.name} {device.value}" for device in Device)]
    lines += ["", "/* Operations of the disk's ring, and what a grant allows. */"]
    operations = (("READ", block.READ), ("WRITE", block.WRITE), ("FLUSH", block.FLUSH))
    lines += [f"#define PV_BLOCK_{name} {value}" for name, value in operations]
    lines += [f"#define PV_GRANT_READABLE {READABLE}", f"#define PV_GRANT_WRITABLE {WRITABLE}"]
    lines += ["", "/* Places in the shared page, for the assembler. */"]
    lines += [f"#define PV_SHARED_{name.upper()} {8 * index}" for index, (name, _) in enumerate(SHARED)]
    lines += ["", "#ifndef __ASSEMBLER__", "#include <stdint.h>", "", "struct pv_call {"]
    lines += ["    uint64_t number, argument0, argument1;", "    int64_t error;", "};", "", "struct pv_shared {"]
    lines += [f"    uint64_t {name};{' ' * (14 - len(name))}/* {meaning} */" for name, meaning in SHARED]
    lines += [f"    uint64_t reserved[{512 - GRANTS - len(SHARED)}];"]
    lines += [f"    uint64_t grants[{GRANTS}]; /* pages that back ends may read (bit 0) and write (bit 1) */"]
    lines += ["};", "", "struct pv_console {", f"    uint64_t {', '.join(CONSOLE_RING)};"]
    lines += [f"    char in[{CONSOLE_INPUT}], out[{CONSOLE_OUTPUT}];", "};", ""]
    lines += ["struct pv_request {", "    uint64_t operation, place, buffer, bytes;", "};", "", "struct pv_ring {"]
    lines += ["    uint64_t produced, answered, reserved[6];", f"    struct pv_request slots[{SLOTS}];", "};", "#endif"]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The calls as a table for people, in Markdown."""
    rows = ["| | call | what it does | errors |", "|---|---|---|---|"]
    for call in CALLS:
        errors = ", ".join(error.name.lower().replace("_", " ") for error in call.errors)
        name = f"{call.number.name.lower()}({', '.join(call.arguments)})"
        rows.append(f"| {call.number.value} | `{name}`{'' if call.batched else ' *'} | {call.meaning} | {errors} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(header(), end="")
