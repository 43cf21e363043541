"""Traps that stay inside the guest, taken without leaving native code: from a mode to the kernel that the
architecture delegates them to, and back.

What Hart.trap does in Python, with the record that the hart's observer would write: the architecture's own trap
entry, then a record in the hart's buffer. Refused, and so left to Python: traps for a monitor (firmware, a
hypervisor), a full buffer, and a guest that does nothing but trap any more.
"""

from __future__ import annotations

from typing import Any

from engine.isa.csrs import Csr
from engine.machine import csrfile, privileged
from engine.machine.native import access
from engine.machine.native.procedures import Refused
from engine.machine.privileged import MACHINE, SUPERVISOR, USER
from engine.machine.state import NO_TIME
from engine.machine.traps import TRAP_LOOP
from engine.trace.record import INTERRUPT_BIT, PATH_IDS, RECORD, Action, Cause, Disposition, Kind, Level

RECORD_BYTES = RECORD.itemsize
#: Of a row of `number_records`: the key, the number. What of a record is its key.
ROW_BYTES, KEY_BYTES = 16, 4
_FIELDS = RECORD.fields
assert _FIELDS is not None
SEQUENCE, TIME, POSITION, PC, VALUE, A, B, EXECUTED, COST, INSTRUCTION, IDS, VCPU, KIND = (
    int(_FIELDS[name][1])
    for name in ("sequence", "time", "position", "pc", "value", "a", "b", "executed", "cost", "instruction", "host",
                 "vcpu", "kind")
)  # fmt: skip
#: What `write_record` writes in one word: a byte each, from the vCPU on.
_LAST_FIELDS = ("vcpu", "kind", "cause", "path", "disposition", "action", "from_level", "to_level")
if [_FIELDS[name][1] - VCPU for name in _LAST_FIELDS] != list(range(8)):
    raise ValueError("the last fields of a record are not bytes next to each other")
TICK_NS = 100
MASK32 = 0xFFFFFFFF
#: Path of a trap that the hardware delivers, by where it came from and where it went.
USER_TO_KERNEL, KERNEL_TO_KERNEL, USER_TO_FIRMWARE, KERNEL_TO_FIRMWARE, WITHIN_FIRMWARE = (
    PATH_IDS[(begin, Level.HARDWARE, end)]
    for begin, end in (
        (Level.USER, Level.KERNEL), (Level.KERNEL, Level.KERNEL), (Level.USER, Level.FIRMWARE),
        (Level.KERNEL, Level.FIRMWARE), (Level.FIRMWARE, Level.FIRMWARE),
    )
)  # fmt: skip


def clock(h: Any) -> int:
    """As Hart.clock."""
    now: int = h.steps + h.extra
    return now


def retired(h: Any) -> int:
    """As Hart.retired."""
    now: int = h.steps - h.unretired
    return now


def time_ticks(h: Any) -> int:
    """mtime."""
    if h.time_started == NO_TIME:
        raise Refused
    ticks: int = (h.clock - h.time_started) // TICK_NS + h.time_offset
    return ticks


def change_in_python(h: Any, row: Csr, word: int) -> None:  # noqa: ARG001 (as csrfile.access_write)
    """A write of a CSR that concerns more than the hart's state: only whether it is allowed is known here."""
    csrfile.check(h, row, True)
    raise Refused


def level(privilege: int) -> int:
    if privilege == USER:
        return Level.USER
    return Level.KERNEL if privilege == SUPERVISOR else Level.FIRMWARE


def path(origin: int, target: int) -> int:
    if target == MACHINE:
        if origin == MACHINE:
            return WITHIN_FIRMWARE
        return USER_TO_FIRMWARE if origin == USER else KERNEL_TO_FIRMWARE
    return USER_TO_KERNEL if origin == USER else KERNEL_TO_KERNEL


def kind(cause: int) -> int:
    """What sort of event an exception is for a system that nobody runs below."""
    if cause == Cause.ECALL_U:
        return Kind.SYSCALL
    if cause == Cause.ECALL_S or cause == Cause.ECALL_VS:
        return Kind.HYPERCALL
    if (
        cause == Cause.INSTRUCTION_PAGE_FAULT or cause == Cause.LOAD_PAGE_FAULT or cause == Cause.STORE_PAGE_FAULT
    ):  # fmt: skip
        return Kind.PAGE_FAULT
    return Kind.EXCEPTION


def follow_streak(h: Any, cause: int) -> None:
    """Count exceptions without a retired instruction between them, as Guest.follow_trap does; refused where that
    would end the guest."""
    if h.streak_at != h.retired:
        h.streak_length = 0
    if h.streak_length + 1 >= TRAP_LOOP:
        raise Refused
    if h.streak_length == 0:
        h.streak_at = h.retired
        h.streak_cause = cause
        h.streak_pc = h.pc
    h.streak_length = h.streak_length + 1


def write_record(
    h: Any, record: int, time: int, position: int, at: int, value: int, a: int, b: int, executed: int, cost: int,
    instruction: int, ids: int, kind: int, cause: int, path: int, disposition: int, action: int, origin: int, to: int,
) -> None:  # fmt: skip
    """A record at an address, without its sequence. ids: as HartState.record_ids."""
    h.poke(record + TIME, 8, time)
    h.poke(record + POSITION, 8, position)
    h.poke(record + PC, 8, at)
    h.poke(record + VALUE, 8, value)
    h.poke(record + A, 8, a)
    h.poke(record + B, 8, b)
    h.poke(record + EXECUTED, 4, executed)
    h.poke(record + COST, 4, cost)
    h.poke(record + INSTRUCTION, 4, instruction)
    h.poke(record + IDS, 4, ids)
    h.poke(
        record + VCPU, 8,
        ids >> 32 & 0xFF | kind << 8 | cause << 16 | path << 24 | disposition << 32 | action << 40 | origin << 48 | to << 56,
    )  # fmt: skip


def number_records(h: Any, sequence: int, rows: int) -> int:
    """Give the hart's records their sequences, which follow `sequence`, and count them by what is counted (KEY_BYTES from
    KIND on): a row at `rows` for each that there is. Returns how many rows there are."""
    record = h.record_at
    end = record + h.record_count * RECORD_BYTES
    beyond = rows
    while record < end:
        key = h.peek(record + KIND, KEY_BYTES)
        begin = record
        while record < end and h.peek(record + KIND, KEY_BYTES) == key:
            sequence += 1
            h.poke(record + SEQUENCE, 8, sequence)
            record += RECORD_BYTES
        row = rows
        while row < beyond and h.peek(row, 8) != key:
            row += ROW_BYTES
        if row == beyond:
            h.poke(row, 8, key)
            h.poke(row + 8, 8, 0)
            beyond += ROW_BYTES
        h.poke(row + 8, 8, h.peek(row + 8, 8) + (record - begin) // RECORD_BYTES)
    return (beyond - rows) // ROW_BYTES


def take_trap(h: Any, cause: int, value: int, interrupt: bool) -> None:
    """Take a trap at h.pc; `steps` and `unretired` count it already."""
    to = privileged.trap_target(h, cause, interrupt)
    if h.record_count >= h.record_limit or (to == MACHINE and h.monitored):
        raise Refused
    if not interrupt:
        follow_streak(h, cause)
    origin = h.privilege
    at = h.pc
    privileged.enter_trap(h, to, cause, value, interrupt)
    access.change_mode(h)
    record = h.record_at + h.record_count * RECORD_BYTES
    h.record_count = h.record_count + 1
    executed = h.retired - h.reported
    h.reported = h.retired
    write_record(
        h, record, h.clock - 1, h.position_base + h.steps - 1, at, value, h.pc, 0, min(executed, MASK32), 0,
        value if cause == Cause.ILLEGAL_INSTRUCTION and not interrupt else 0, h.record_ids,
        Kind.INTERRUPT if interrupt else kind(cause), cause | (INTERRUPT_BIT if interrupt else 0),
        path(origin, h.privilege), Disposition.HARDWARE, Action.DELIVER, level(origin), level(h.privilege),
    )  # fmt: skip
