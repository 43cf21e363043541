"""The disassembler: an instruction word as the text a student would have written.

Derived from the instruction rows (operands as each row's format spells them) and, backwards, from the table
of pseudo-instructions. Invariant, tested for every row: assembling the text at the same pc gives the word
again; what is no instruction of this machine becomes `.word 0x...` or `.half 0x...`.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from engine.bits import MASK64
from engine.isa.csrs import CSR_NUMBERS, CSRS
from engine.isa.decoder import decode, encoding_of, length_of
from engine.isa.formats import DYNAMIC, ROUNDING_MODES, Row
from engine.isa.pseudo import PSEUDOS, Pseudo
from engine.isa.table import BY_MNEMONIC, FLOAT_REGISTERS, REGISTERS

_FENCE_LETTERS = "iorw"
_OPERAND = re.compile(r"\b(?!sp\b)[a-z]+\d?")
#: Operands that are not named as their field is.
_FIELDS = {"target": "imm", "upper": "imm", "frd": "rd", "frs1": "rs1", "frs2": "rs2", "frs3": "rs3"}


class _Reverse(NamedTuple):
    """A pseudo-instruction seen from its real one: it fits when every field in `fixed` has that value and the operands
    of each pair in `equal` are one.
    """

    pseudo: Pseudo
    fixed: dict[str, int]
    named: dict[str, str]  # the pseudo-instruction's operand -> the real one's
    equal: list[tuple[str, str]]


def disassemble(word: int, pc: int) -> str:
    """The instruction at the begin of `word` (at address `pc`) as assembly; jump and branch targets are
    absolute addresses in hexadecimal.

    An encoding whose reserved fields are not zero (a fence with registers, say) executes, but has no
    spelling: `.word`.
    """
    row = decode(word)
    if row is None or any(row.operands(word)[name] for name in _unspelt(row)):
        word = encoding_of(word)
        return f".word 0x{word & 0xFFFF_FFFF:08x}" if length_of(word) == 4 else f".half 0x{word:04x}"
    fields = row.operands(word)
    texts = {operand: _text(operand, fields[_FIELDS.get(operand, operand)], pc) for operand in _operands(row)}
    for reverse in _REVERSES.get(row.mnemonic, ()):
        if all(fields[name] == value for name, value in reverse.fixed.items()) and all(
            texts[one] == texts[other] for one, other in reverse.equal
        ):
            named = {name: texts[operand] for name, operand in reverse.named.items()}
            return _spell(reverse.pseudo.mnemonic, ", ".join(reverse.pseudo.operands), named)
    syntax = row.syntax.removesuffix(", rm") if fields.get("rm") == DYNAMIC else row.syntax
    order = "".join(name for name in ("aq", "rl") if fields.get(name))
    return _spell(f"{row.mnemonic}.{order}" if order else row.mnemonic, syntax, texts)


def _spell(mnemonic: str, syntax: str, texts: dict[str, str]) -> str:
    """`syntax` with each operand's name replaced by its text."""
    return f"{mnemonic} {re.sub(_OPERAND, lambda match: texts[match[0]], syntax)}".rstrip()


def _text(operand: str, value: int, pc: int) -> str:
    """One operand of a row's syntax as text."""
    match operand:
        case "rd" | "rs1" | "rs2":
            return REGISTERS[value]
        case "frd" | "frs1" | "frs2" | "frs3":
            return FLOAT_REGISTERS[value]
        case "rm":
            return ROUNDING_MODES[value] or ""
        case "csr":
            return CSRS[value].name if value in CSRS else f"0x{value:x}"
        case "target":
            return f"0x{(pc + value) & MASK64:x}"
        case "upper":
            return f"0x{value >> 12 & 0xFFFFF:x}"
        case "pred" | "succ":
            return (
                "".join(letter for index, letter in enumerate(_FENCE_LETTERS) if value >> (3 - index) & 1)
                or "0"
            )
        case _:
            return str(value)


def _operands(row: Row) -> list[str]:
    return re.findall(_OPERAND, row.syntax)


@functools.cache
def _unspelt(row: Row) -> tuple[str, ...]:
    """Fields that no operand shows: reserved for the future, zero today."""
    shown = {_FIELDS.get(name, name) for name in _operands(row)} | {"aq", "rl"}
    return tuple(name for name in row.fields if name not in shown)


def _constant(text: str) -> int | None:
    """What a template's operand fixes a field to: a register, a CSR, a fence set or a number; None for a
    variable.
    """
    if re.fullmatch(r"x\d+", text):
        return int(text[1:])
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if text in CSR_NUMBERS:
        return CSR_NUMBERS[text]
    if text in {"iorw", "w"}:
        return sum(8 >> _FENCE_LETTERS.index(letter) for letter in text)
    return None


def _reverses() -> dict[str, list[_Reverse]]:
    reverses: dict[str, list[_Reverse]] = {}
    for pseudo in PSEUDOS:
        if not pseudo.reversible:
            continue
        mnemonic, _, text = pseudo.expansion[0].partition(" ")
        fixed: dict[str, int] = {}
        named: dict[str, str] = {}
        equal: list[tuple[str, str]] = []
        words = re.findall(r"-?\w+", text)
        for operand, word in zip(_operands(BY_MNEMONIC[mnemonic]), words, strict=True):
            constant = _constant(word)
            if constant is None:
                if word in named:
                    equal.append((named[word], operand))
                named[word] = operand
            else:
                fixed[_FIELDS.get(operand, operand)] = constant
        reverses.setdefault(mnemonic, []).append(_Reverse(pseudo, fixed, named, equal))
    return reverses


_REVERSES = _reverses()
