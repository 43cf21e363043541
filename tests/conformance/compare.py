"""What a program left in memory, read back and compared: traps first, then CSRs, registers and every other
byte.

The first trap that differs is usually the cause of everything after it, so it is told with the instruction.

Where QEMU 7.2 differs from us because the privileged specification leaves a choice, or because it is wrong,
the comparison looks away (`_agreed`); programs.CSR_ACCESSES and comments at the steps name more, which no
program goes near:

    tval of ebreak                     QEMU 0, we the pc: both allowed (3.1.16)
    tval of an illegal sinval.vma      QEMU 0, we the encoding: both allowed (3.1.16)
    cause of a fault of an AMO         QEMU says load, the specification store/AMO (table 3.6)
    A of a page without W              QEMU sets it for an AMO's load before its store faults: allowed (4.3.1)
    tval of a misaligned access that   QEMU names the aligned part that it tried first: allowed (3.1.16)
      nothing answers
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from engine.isa.csrs import csr_fields
from engine.isa.decoder import decode
from engine.isa.disassembler import disassemble
from engine.isa.program import Program
from tests.conformance.programs import ALIAS, BASE, FLOATS, LARGE_PAGE, STATE_CSRS

TRAP = struct.Struct("<7Q8x")
TRAP_FIELDS = ("cause", "epc", "tval", "status", "mode", "pending", "vector")

LOAD_CAUSES = {4: 6, 5: 7, 13: 15}
MAXIMUM = 12


def differences(program: Program, theirs: bytes, ours: bytes, who: str = "QEMU") -> list[str]:
    """Sentences about what differs between two memories (RAM from BASE), the most telling first; [] when
    nothing does.
    """
    found: list[str] = []
    for sentence in _differences(program, theirs, ours, who):
        found.append(sentence)
        if len(found) == MAXIMUM:
            break
    return found


def _differences(program: Program, theirs: bytes, ours: bytes, who: str) -> Iterator[str]:
    their_traps, our_traps = ([_agreed(program, trap) for trap in traps(program, m)] for m in (theirs, ours))
    for index, (expected, actual) in enumerate(zip(their_traps, our_traps, strict=False)):
        if expected != actual:
            place = _place(program, expected["epc"])
            yield f"trap {index} at {place}: {who} {_told(expected)}, we {_told(actual)}"
            return
    if len(their_traps) != len(our_traps):
        longer = their_traps if len(their_traps) > len(our_traps) else our_traps
        extra = longer[min(len(their_traps), len(our_traps))]
        trapped = who if longer is their_traps else "we"
        yield f"only {trapped} trapped at {_place(program, extra['epc'])}: {_told(extra)}"
    state = program.symbols["state"] - BASE
    for index, name in enumerate(STATE_CSRS):
        if name in {"scause", "stval", "mtval"}:
            continue  # of the last trap, which was compared above
        expected_value, actual_value = (
            struct.unpack_from("<Q", memory, state + 256 + 8 * index)[0] for memory in (theirs, ours)
        )
        if expected_value != actual_value:
            fields = [
                f"{label} {one} and {other}"
                for (label, one), (_, other) in zip(
                    csr_fields(name, expected_value), csr_fields(name, actual_value), strict=True
                )
                if one != other
            ]
            yield f"{name}: {who} {expected_value:#x}, we {actual_value:#x} ({', '.join(fields)})"
    for number in range(32):
        expected_value, actual_value = (
            struct.unpack_from("<Q", memory, state + 8 * number)[0] for memory in (theirs, ours)
        )
        if expected_value != actual_value:
            yield f"x{number}: {who} {expected_value:#x}, we {actual_value:#x}"
    for number in range(32):
        expected_value, actual_value = (
            struct.unpack_from("<Q", memory, state + FLOATS + 8 * number)[0] for memory in (theirs, ours)
        )
        if expected_value != actual_value:
            yield f"f{number}: {who} {expected_value:#x}, we {actual_value:#x}"
    expected_value, actual_value = (
        struct.unpack_from("<Q", memory, state + FLOATS - 8)[0] for memory in (theirs, ours)
    )
    if expected_value != actual_value:
        yield f"fcsr: {who} {expected_value:#x}, we {actual_value:#x}"
    entries = range(program.symbols["root_table"] - BASE, program.symbols["arena"] - BASE)
    begin, end = (program.symbols[name] - BASE for name in ("signature", "signature_end"))
    skipped = range(state, program.symbols["log_end"] - BASE)  # compared above
    for low, high in ((begin, end), (LARGE_PAGE - BASE, LARGE_PAGE - BASE + 0x20_0000)):
        for at in range(low, high, 8):
            if theirs[at : at + 8] != ours[at : at + 8] and at not in skipped:
                words = [int.from_bytes(memory[at : at + 8], "little") for memory in (theirs, ours)]
                if at in entries and words[0] ^ words[1] == 0x40 and not words[0] & 4:
                    continue
                yield f"{_symbol(program, BASE + at)}: {who} {words[0]:#x}, we {words[1]:#x}"


def traps(program: Program, memory: bytes) -> list[dict[str, int]]:
    """The log that the program's handlers wrote."""
    (end,) = struct.unpack_from("<Q", memory, program.symbols["log_next"] - BASE)
    addresses = range(
        program.symbols["log"], max(program.symbols["log"], min(end, program.symbols["log_end"])), 64
    )
    return [
        dict(zip(TRAP_FIELDS, TRAP.unpack_from(memory, address - BASE), strict=True)) for address in addresses
    ]


def _agreed(program: Program, trap: dict[str, int]) -> dict[str, int]:
    """A trap without what the table at the top lists."""
    word = _word(program, trap["epc"])
    row = decode(word) if word is not None else None
    trap = dict(trap)
    if trap["cause"] == 3 or (trap["cause"] == 2 and row is not None and row.mnemonic == "sinval.vma"):
        trap["tval"] = 0
    if row is not None and row.mnemonic.startswith("amo"):
        trap["cause"] = LOAD_CAUSES.get(trap["cause"], trap["cause"])
    if trap["cause"] in {5, 7}:
        trap["tval"] &= ~7
    return trap


def _word(program: Program, pc: int) -> int | None:
    """The instruction at an address, through the alias too."""
    address = pc - ALIAS + BASE if pc >> 30 == ALIAS >> 30 else pc
    text = program.sections[0]
    at = address - text.address
    return int.from_bytes(text.content[at : at + 4], "little") if 0 <= at < text.size else None


def _told(trap: dict[str, int]) -> str:
    return ", ".join(f"{name} {value:#x}" for name, value in trap.items())


def _symbol(program: Program, address: int) -> str:
    below = {name: value for name, value in program.symbols.items() if BASE <= value <= address}
    name = max(below, key=lambda name: below[name])
    return f"{name}+{address - below[name]:#x}"


def _place(program: Program, pc: int) -> str:
    """An address with its source line and instruction, through the alias too."""
    address = pc - ALIAS + BASE if pc >> 30 == ALIAS >> 30 else pc
    line, word = program.line_at(address), _word(program, pc)
    if line is None or word is None:
        return f"{pc:#x}"
    return f"{pc:#x} (line {line}: {disassemble(word, pc)})"
