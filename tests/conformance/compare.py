"""What a program left in memory, read back and compared: traps first, then CSRs, registers and every other byte.

The first trap that differs is usually the cause of everything after it, so it is told with the instruction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from engine.isa.csrs import csr_fields
from engine.isa.disassembler import disassemble
from engine.isa.program import Program
from tests.conformance.programs import ALIAS, BASE, LARGE_PAGE, STATE_CSRS

TRAP = struct.Struct("<6Q16x")
TRAP_FIELDS = ("cause", "epc", "tval", "status", "mode", "pending")

#: Where QEMU 7.2 and our machine may differ by the privileged specification: register -> (bits compared, reason).
#: What a body writes is limited to begin with; programs.CSR_ACCESSES has those reasons.
COMPARED_BITS: dict[str, tuple[int, str]] = {
    "misa": ((1 << 64) - 1, "the same extensions, so the same register"),
}
MAXIMUM = 12


def differences(program: Program, theirs: bytes, ours: bytes) -> list[str]:
    """Sentences about what differs between two memories (RAM from BASE), the most telling first; [] when nothing does."""
    found: list[str] = []
    for sentence in _differences(program, theirs, ours):
        found.append(sentence)
        if len(found) == MAXIMUM:
            break
    return found


def _differences(program: Program, theirs: bytes, ours: bytes) -> Iterator[str]:
    their_traps, our_traps = traps(program, theirs), traps(program, ours)
    for index, (expected, actual) in enumerate(zip(their_traps, our_traps, strict=False)):
        if expected != actual:
            yield f"trap {index} at {_place(program, expected['epc'])}: QEMU {_told(expected)}, we {_told(actual)}"
            return
    if len(their_traps) != len(our_traps):
        longer = their_traps if len(their_traps) > len(our_traps) else our_traps
        extra = longer[min(len(their_traps), len(our_traps))]
        who = "QEMU" if longer is their_traps else "we"
        yield f"only {who} trapped at {_place(program, extra['epc'])}: {_told(extra)}"
    state = program.symbols["state"] - BASE
    for index, name in enumerate(STATE_CSRS):
        mask = COMPARED_BITS.get(name, ((1 << 64) - 1, ""))[0]
        expected_value, actual_value = (
            struct.unpack_from("<Q", memory, state + 256 + 8 * index)[0] & mask for memory in (theirs, ours)
        )
        if expected_value != actual_value:
            fields = [
                f"{label} {one} and {other}"
                for (label, one), (_, other) in zip(
                    csr_fields(name, expected_value), csr_fields(name, actual_value), strict=True
                )
                if one != other
            ]
            yield f"{name}: QEMU {expected_value:#x}, we {actual_value:#x} ({', '.join(fields)})"
    for number in range(32):
        expected_value, actual_value = (
            struct.unpack_from("<Q", memory, state + 8 * number)[0] for memory in (theirs, ours)
        )
        if expected_value != actual_value:
            yield f"x{number}: QEMU {expected_value:#x}, we {actual_value:#x}"
    begin, end = (program.symbols[name] - BASE for name in ("signature", "signature_end"))
    skipped = range(state, state + 256 + 8 * len(STATE_CSRS))
    for low, high in ((begin, end), (LARGE_PAGE - BASE, LARGE_PAGE - BASE + 0x20_0000)):
        for at in range(low, high, 8):
            if theirs[at : at + 8] != ours[at : at + 8] and at not in skipped:
                words = [int.from_bytes(memory[at : at + 8], "little") for memory in (theirs, ours)]
                yield f"{_symbol(program, BASE + at)}: QEMU {words[0]:#x}, we {words[1]:#x}"


def traps(program: Program, memory: bytes) -> list[dict[str, int]]:
    """The log that the program's handlers wrote."""
    (end,) = struct.unpack_from("<Q", memory, program.symbols["log_next"] - BASE)
    addresses = range(program.symbols["log"], max(program.symbols["log"], min(end, program.symbols["log_end"])), 64)
    return [
        dict(zip(TRAP_FIELDS, TRAP.unpack_from(memory, address - BASE), strict=True)) for address in addresses
    ]


def _told(trap: dict[str, int]) -> str:
    return ", ".join(f"{name} {value:#x}" for name, value in trap.items())


def _symbol(program: Program, address: int) -> str:
    below = {name: value for name, value in program.symbols.items() if BASE <= value <= address}
    name = max(below, key=lambda name: below[name])
    return f"{name}+{address - below[name]:#x}"


def _place(program: Program, pc: int) -> str:
    """An address with its source line and instruction, through the alias too."""
    address = pc - ALIAS + BASE if pc >> 30 == ALIAS >> 30 else pc
    line = program.line_at(address)
    text = program.sections[0]
    if line is None:
        return f"{pc:#x}"
    word = int.from_bytes(text.content[address - text.address :][:4], "little")
    return f"{pc:#x} (line {line}: {disassemble(word, pc)})"
