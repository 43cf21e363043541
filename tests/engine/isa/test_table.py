"""The instruction table against itself and against binutils: encodings, round trips, decoding."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.isa.assembler import words_of
from engine.isa.csrs import CSR_NUMBERS, CSRS
from engine.isa.decoder import decode
from engine.isa.disassembler import disassemble
from engine.isa.formats import Row
from engine.isa.table import ROWS
from tests.support import binutils

PC = 0x8020_0000
#: Special cases that have names of their own; the decoder finds those first.
NAMED_APART = {("fence", "fence.tso"), ("fence", "pause")}


def spelt_fields(row: Row) -> list[str]:
    """The fields that the row's syntax lets a program choose."""
    named = {name.removeprefix("f") for name in re.findall(r"[a-z]+\d?", row.syntax)} | {"aq", "rl"}
    if named & {"upper", "target"}:
        named.add("imm")
    return [field for field in row.fields if field in named]


def random_operands(row: Row, rng: random.Random) -> dict[str, int]:
    """Values that every spelt field admits, often at an edge."""
    operands = {}
    for field in spelt_fields(row):
        low, high, step = row.limits(field)
        edges = (low, low + step, high, 0, step, -step, low + (high + step - low) // 2)
        value = low + (rng.randrange(high + step - low) // step) * step
        if rng.random() < 0.4:
            value = rng.choice([edge for edge in edges if low <= edge <= high])
        while value in row.excluded.get(field, ()):
            value = low + (rng.randrange(high + step - low) // step) * step
        operands[field] = value
    return operands


def random_word(row: Row, rng: random.Random) -> int:
    """An encoding of `row` with random operands and zeros where nothing may be chosen."""
    while True:
        word = row.encode(**random_operands(row, rng))
        if (row.mnemonic, getattr(decode(word), "mnemonic", "")) not in NAMED_APART:
            return word


def test_no_two_long_encodings_overlap() -> None:
    overlapping = set()
    for first, second in combinations([row for row in ROWS if row.length == 4], 2):
        common = first.mask & second.mask
        if not (first.match ^ second.match) & common:
            assert common == first.mask != second.mask, "the special one must have more fixed bits"
            overlapping.add((first.mnemonic, second.mnemonic))
    assert overlapping == NAMED_APART


def test_no_halfword_encodes_two_rows() -> None:
    """All of them; and the decoder finds the one there is."""
    rows = [row for row in ROWS if row.length == 2]
    for half in range(1 << 16):
        admitting = [row for row in rows if row.admits(half)]
        assert not (admitting and half & 3 == 3)
        assert len(admitting) <= 1, (f"{half:04x}", [row.mnemonic for row in admitting])
        if half & 3 != 3:
            assert decode(half) is decode(half | 0xABCD_0000) is (admitting[0] if admitting else None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.mnemonic)
def test_a_row_is_made_of_its_bits_once_each(row: Row) -> None:
    covered = row.mask
    for piece in row.pieces:
        if piece.field not in row.fields:
            continue  # shares the bits of the field that it is an alias of
        bits = ((1 << piece.width) - 1) << piece.word_low
        assert not covered & bits
        covered |= bits
    assert covered == (1 << 8 * row.length) - 1
    assert row.match & ~row.mask == 0
    assert (row.match & 3 == 3) == (row.length == 4)
    assert not row.implied.keys() & {piece.field for piece in row.pieces}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.mnemonic)
def test_assembling_a_disassembly_gives_the_word_again(row: Row) -> None:
    rng = random.Random(row.mnemonic)
    for _ in range(100):
        word = random_word(row, rng)
        assert decode(word) is row
        text = disassemble(word, PC)
        assert words_of(text, PC) == [word], text


def test_every_compressed_encoding_disassembles_to_text_that_assembles_to_it() -> None:
    for half in random.Random(16).sample([half for half in range(1 << 16) if half & 3 != 3], 3000):
        assert words_of(disassemble(half, PC), PC) == [half]


@given(
    st.integers(0, 0xFFFF_FFFF).map(lambda word: word | 3),
    st.integers(0, (1 << 62) - 1).map(lambda value: value * 4),
)
@settings(max_examples=1000, deadline=None)
def test_every_word_disassembles_to_text_that_assembles_to_it(word: int, pc: int) -> None:
    assert words_of(disassemble(word, pc), pc) == [word]


@given(st.sampled_from(ROWS), st.data())
def test_operands_come_back_from_an_encoding(row: Row, data: st.DataObject) -> None:
    chosen = {}
    for field in row.fields:
        low, high, step = row.limits(field)
        values = st.integers(0, (high - low) // step).map(lambda count, low=low, step=step: low + count * step)
        chosen[field] = data.draw(values.filter(lambda value, field=field: value not in row.excluded.get(field, ())))
    assert row.operands(row.encode(**chosen)).items() >= (chosen | row.implied).items()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.mnemonic)
def test_an_operand_that_does_not_fit_is_refused_by_name(row: Row) -> None:
    rng = random.Random(row.mnemonic)
    fitting = random_operands(row, rng)
    for field in row.fields:
        for value in (1 << 40, *row.excluded.get(field, ())):
            with pytest.raises(ValueError, match=field):
                row.encode(**fitting | {field: value})


# -- binutils ----------------------------------------------------------------------------------------
def normal(text: str) -> str:
    """Spelling differences that mean nothing: blanks, number bases, CSR names against numbers."""
    mnemonic, _, operands = text.partition(" ")
    parts = []
    for part in re.split(r"([,()])", operands.replace(" ", "")):
        if part in CSR_NUMBERS:
            parts.append(str(CSR_NUMBERS[part]))
        elif re.fullmatch(r"-?0x[0-9a-f]+|-?\d+", part):
            parts.append(str(int(part, 0)))
        else:
            parts.append(part)
    return f"{mnemonic} {''.join(parts)}".strip()


def test_ten_thousand_random_words_read_as_objdump_reads_them() -> None:
    rng = random.Random(20191213)
    words = []
    rows = [row for row in ROWS if row.length == 4]
    while len(words) < 10_000:
        word = random_word(rng.choice(rows), rng)
        row = decode(word)
        assert row is not None
        if row.fields.count("csr") and row.operands(word)["csr"] not in CSRS:
            continue  # objdump names CSRs of extensions that this machine does not have
        words.append(word)
    theirs = binutils.disassembly(words, address=PC)
    assert len(theirs) == len(words)
    different = []
    for index, (word, text) in enumerate(zip(words, theirs, strict=True)):
        ours = disassemble(word, PC + 4 * index)
        if normal(as_ours(text)) != normal(ours):
            different.append((f"{word:08x}", text, ours))
    assert not different, different[:20]


def test_every_halfword_reads_as_objdump_reads_it() -> None:
    """All compressed encodings, and all that are none."""
    halves = [half for half in range(1 << 16) if half & 3 != 3]
    theirs = binutils.disassembly(halves, "-M", "no-aliases", address=PC)
    assert len(theirs) == len(halves)
    different = []
    for index, (half, text) in enumerate(zip(halves, theirs, strict=True)):
        ours = disassemble(half, PC + 2 * index)
        if normal(compressed_as_ours(text, half)) != normal(ours):
            different.append((f"{half:04x}", text, ours))
    assert not different, (len(different), different[:: len(different) // 20 + 1])


def compressed_as_ours(text: str, half: int) -> str:
    """objdump has names for what the manual calls illegal or reserved, HINTs of c.nop, and HINTs with a shift
    of 0."""
    if text == "c.addi zero,0":
        return "c.nop"
    if text.startswith((".2byte", "c.unimp", "c.addi zero,")) or text == "c.addi16sp sp,0":
        return f".half {half:#x}"
    return re.sub(r"(c.s\w+i)64 (\w+)", r"\1 \2, 0", text)


#: objdump 2.40 prints the assembler's shorthand `add a0, a0, 5` for an immediate; we print the instruction.
SHORTHAND = {"add": "addi", "addw": "addiw", "and": "andi", "or": "ori", "xor": "xori", "slt": "slti",
             "sltu": "sltiu", "sll": "slli", "srl": "srli", "sra": "srai", "sllw": "slliw", "srlw": "srliw",
             "sraw": "sraiw", "ror": "rori", "rorw": "roriw",
             "bclr": "bclri", "bext": "bexti", "binv": "binvi", "bset": "bseti",
             "csrrw": "csrrwi", "csrrs": "csrrsi", "csrrc": "csrrci", "csrw": "csrwi", "csrs": "csrsi",
             "csrc": "csrci"}  # fmt: skip


def as_ours(text: str) -> str:
    """objdump's text with our spelling of what it abbreviates."""
    mnemonic, _, operands = text.partition(" ")
    last = operands.split(",")[-1]
    if mnemonic in SHORTHAND and re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", last):
        return f"{SHORTHAND[mnemonic]} {operands}"
    return re.sub(r"^(fs\w+i) zero,", r"\1 ", text).replace("unknown", "0")


def test_illegal_words_are_illegal_for_binutils_too() -> None:
    """With the extensions that binutils knows beyond ours left out by their major opcodes."""
    rng = random.Random(7)
    opcodes = (0x03, 0x13, 0x17, 0x1B, 0x23, 0x33, 0x37, 0x3B, 0x63, 0x67, 0x6F, 0x07, 0x27, 0x43, 0x47, 0x4B, 0x4F)
    words = [rng.getrandbits(32) & ~0x7F | rng.choice((*opcodes, *[0x53] * 4)) for _ in range(8000)]
    words = [word & ~0x1F00000 if word & 0x7F == 0x53 and rng.random() < 0.7 else word for word in words]
    theirs = binutils.disassembly(words, "-M", "no-aliases")
    known = {row.mnemonic for row in ROWS}
    for word, text in zip(words, theirs, strict=True):
        row = decode(word)
        if row is None:
            reserved = text.endswith("unknown")  # a rounding mode, which objdump shows within the instruction
            assert reserved or text.split(" ")[0] not in known, f"{word:08x} is {text}"
        elif "rm" not in row.fields or "rm" in row.syntax or not row.operands(word)["rm"]:
            assert text.split(" ")[0] == row.mnemonic, f"{word:08x} is {text}"
