"""The assembler against GNU as and ld byte for byte, its errors, and what hostile sources do to it."""

from __future__ import annotations

import io
import random
import re
import struct
from importlib import resources

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.isa.assembler import (
    BSS_LIMIT,
    DEFAULT_BASE,
    ERROR_LIMIT,
    FLOAT_PATTERNS,
    FORMS,
    ROUNDING_NUMBERS,
    AssemblyError,
    assemble,
    words_of,
)
from engine.isa.csrs import CSRS
from engine.isa.diagnostics import MESSAGES
from engine.isa.disassembler import disassemble
from engine.isa.formats import Row
from engine.isa.pseudo import PSEUDOS
from engine.isa.table import FLOAT_REGISTERS, REGISTERS, ROWS
from tests.engine.isa.test_table import random_word
from tests.support import binutils

CALLER = "engine.guests"
EDGES = (
    *(0, 1, -1, 2, 5, -5, 0x7FF, -0x800, 0x800, 0x801, 0xFFF, 0x1000, -0x801, 0x7FFFF7FF, 0x7FFFF800),
    *(0x7FFFFFFF, 0x80000000, -0x80000000, -0x80000001, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF),
    *(-0x8000000000000000, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0x80200000, 0x123456789ABCDEF0),
    *(0xFFF0000000000000, 0xABCDE00000000123, 0x8000000000000001, 0x00FF00FF00FF00FF),
    *(0xFFFFFFFF80000000, 0xFFFFFFFF7FFFFFFF),
)


def assert_same(source: str) -> None:
    """Our sections' bytes are those of GNU as and ld at our addresses."""
    program = assemble(source)
    ours = {section.name: section.content for section in program.sections if section.content}
    places = {section.name: section.address for section in program.sections if section.size}
    theirs = binutils.sections(source, places)
    for name, content in ours.items():
        expected = theirs[name][: len(content)]  # as fills a code section up to its alignment
        assert len(theirs[name]) - len(content) < 16
        if content != expected:
            size = max(len(content), len(expected))
            at = next(i for i in range(0, size, 4) if content[i : i + 4] != expected[i : i + 4])
            pc = places[name] + at
            line = program.line_at(pc)
            text = source.splitlines()[line - 1] if line else ""
            raise AssertionError(
                f"{name}+{at:#x} {text!r}: {content[at : at + 4].hex()} is not {expected[at : at + 4].hex()}"
            )


def operand(pattern: str, rng: random.Random) -> str:
    """A random operand for one pattern of a row's syntax or a pseudo-instruction's spelling."""
    if pattern in {"rd", "rs", "rt", "rs1", "rs2"}:
        return rng.choice((rng.choice(REGISTERS), f"x{rng.randrange(32)}", "fp"))
    if pattern in FLOAT_PATTERNS:
        return rng.choice((rng.choice(FLOAT_REGISTERS), f"f{rng.randrange(32)}"))
    if pattern.endswith(")"):
        register = rng.choice(REGISTERS)
        return f"({register})" if pattern == "(rs1)" else f"{rng.choice((0, -2048, 2047, 8))}({register})"
    match pattern:
        case "rm":
            return rng.choice(list(ROUNDING_NUMBERS))
        case "csr":
            return rng.choice([row.name for row in CSRS.values() if row.number < 0xB00 or row.number > 0xF00])
        case "target":
            return rng.choice(("here", "there"))
        case "symbol":
            return rng.choice(("here", "there", "there + 8", "variable"))
        case "upper":
            return str(rng.choice((0, 1, 0xFFFFF, 0x80000, rng.getrandbits(20))))
        case "shamt" | "uimm":
            return str(rng.choice((0, 1, 31)))
        case "pred" | "succ":
            return rng.choice(("i", "o", "r", "w", "rw", "iorw", "ir", "ow"))
        case "imm":
            return str(rng.choice((0, 1, -1, 2047, -2048, "'A'", "0x7f", "1 << 3 + 2", "~5 & 0xff", "(2 + 3) * 4")))
        case "value":
            return str(rng.choice((0, 1, 5, 31)))
    raise AssertionError(pattern)


#: What GNU as 2.40 does not take, or takes to mean another instruction.
NOT_GNU = {"call rd, symbol", "jalr rs, value"}


def test_every_row_with_random_operands() -> None:
    rng = random.Random(1)
    lines = []
    for row in (row for row in ROWS if row.length == 4):
        for order in ("", ".aq", ".rl", ".aqrl") if "aq" in row.fields else ("",):
            for _ in range(12):
                operands = [operand(pattern, rng) for pattern in row.syntax.split(", ") if pattern]
                if operands and "rm" in row.syntax and rng.random() < 0.3:
                    del operands[-1]
                lines.append(f"    {row.mnemonic}{order} {', '.join(operands)}")
    for begin in range(0, len(lines), 400):
        body = "\n".join(lines[begin : begin + 400])
        assert_same(f"here:\n{body}\nthere: .word 0, 0, 0\n.data\nvariable: .dword 1\n")


def written(syntax: str, texts: dict[str, str]) -> str:
    """A row's syntax with a text for each operand; `sp` stays."""
    return re.sub(r"[a-z]+\d?", lambda match: texts.get(match[0], match[0]), syntax)


@pytest.mark.parametrize("row", [row for row in ROWS if row.length == 2], ids=lambda row: row.mnemonic)
def test_every_compressed_row_with_every_register_and_value(row: Row) -> None:
    rng = random.Random(row.mnemonic)
    lines = ["here: .option rvc"]
    for _ in range(60):
        word = random_word(row, rng)
        texts = {name: str(value) for name, value in row.operands(word).items()}
        for name in [name for name in texts if name[0] == "r"]:
            number = int(texts[name])
            texts[name] = rng.choice((REGISTERS[number], f"x{number}"))
            texts[f"f{name}"] = rng.choice((FLOAT_REGISTERS[number], f"f{number}"))
        if row.operands(word).get("shamt") == 0:
            continue  # a HINT that GNU as spells otherwise
        texts |= {"target": rng.choice(("here", "there"))}
        if "upper" in row.syntax:
            texts["upper"] = str(int(texts["imm"]) >> 12 & 0xF_FFFF)
        lines.append(f"{row.mnemonic} {written(row.syntax, texts)}")
    assert_same("\n".join(lines) + "\nthere: .word 0\n")


def test_a_program_with_compressed_instructions_says_so() -> None:
    program = assemble("_start: c.li a0, 1\nadd a0, a0, a0\nc.j _start\n")
    assert [line for _, line in program.lines] == [1, 2, 3]
    assert "80200000: 4505          1" in program.listing()
    assert "80200002: 00a50533      2" in program.listing()
    assert "RVC" in binutils.readelf(program.elf(), "-h")
    assert "RVC" not in binutils.readelf(assemble("nop").elf(), "-h")


def test_every_pseudo_instruction() -> None:
    rng = random.Random(2)
    lines = []
    for pseudo in PSEUDOS:
        if f"{pseudo.mnemonic} {', '.join(pseudo.operands)}" in NOT_GNU:
            continue
        lines += [f"{pseudo.mnemonic} {', '.join(operand(p, rng) for p in pseudo.operands)}" for _ in range(6)]
    assert_same("here:\n" + "\n".join(lines) + "\nthere: .word 0, 0, 0\n.data\nvariable: .dword 1\n")


def test_every_mnemonic_has_a_form_that_the_corpus_covers() -> None:
    known = {row.mnemonic for row in ROWS} | {pseudo.mnemonic for pseudo in PSEUDOS}
    assert {re.sub(r"\.(aq|rl|aqrl)$", "", name) for name in FORMS} == known


def test_li_of_any_constant() -> None:
    rng = random.Random(3)
    values = [*EDGES, *(rng.getrandbits(rng.randrange(1, 65)) for _ in range(300))]
    values += [-rng.getrandbits(rng.randrange(1, 64)) for _ in range(150)]
    values += [(1 << rng.randrange(64)) + rng.randrange(-1, 2) for _ in range(100)]
    assert_same("\n".join(f"li {rng.choice(REGISTERS[1:])}, {value}" for value in values))


def test_directives_sections_and_expressions() -> None:
    assert_same(
        r"""
# a comment; with a semicolon
.option norvc
.section .rodata
message: .ascii "tab\tnew\nquote\" back\\ oct\101 hex\x41 end"
message_end:
.text
.equ COUNT, 3
.set LENGTH, message_end - message
SIZE = COUNT * 8 + 1 << 2          # eight a piece
.globl _start
.type _start, @function
_start:
    li a0, COUNT; li a1, LENGTH /* block
    comment */ ; li a2, SIZE
    lui a3, %hi(0x12345678)
    addi a3, a3, %lo(0x12345678)
    lui a3, %hi(0x12345fff)
    lw a4, %lo(0x12345fff)(a3)
1:  auipc a5, %pcrel_hi(message)
    addi a5, a5, %pcrel_lo(1b)
    sw a0, %pcrel_lo(1b)(a5)
1:  beqz a0, 1f
    bnez a0, 1b
    j 1b
1:  li a0, 'A'
    li a0, '\n'
    li a0, 'a' + 1
    li a0, -7 / 2
    li a0, -7 % 2
    li a0, -1 >> 60
    li a0, 1 << 3 | 1 & 6 ^ 2
    li a0, ~0
    li a0, -(3 - 5)
    li a0, 0b1011 + 017 + 0X1f
    li a0, 5 - 3 - 1
    j . + 8
    nop
    lb a0, message
    sd a0, counter, t0
    .balign 8
    .p2align 4
    nop
    .align 3
    ret
.section .rodata, "a", @progbits
    .asciz "a", "bc"
    .string "x"
    .half 1, -1, 0xffff
    .balign 8
    .word 1, -1, message, 0xffffffff
    .dword message, counter - message_end - 0 * 1, -1
    .quad message + 4, 'q'
    .2byte 7
    .4byte 8
    .8byte 9
.data
counter: .dword 0
    .zero 5
    .space 3, 0xaa
    .fill 3, 2, 0x1234
    .byte 1, 2, 'x', -128, 255
    .align 4
    .word _start
.bss
buffer: .skip 64
.text
    la a0, buffer
    call _start
    tail _start
""".replace("counter - message_end - 0 * 1", "message_end - message")
    )


def test_hello_is_what_gnu_as_makes_of_it() -> None:
    source = resources.files(CALLER).joinpath("hello/hello.s").read_text(encoding="utf-8")
    assert_same(source)


def test_the_elf_is_one_that_others_read() -> None:
    program = assemble("""
.equ UART, 0x10000000
.globl _start, table
_start: li a0, UART
  j _start
.data
table: .dword 1, 2
.bss
room: .zero 4096
""")
    elf = program.elf()
    text = binutils.readelf(elf, "-a")
    assert "Entry point address:               0x80200000" in text
    file = ELFFile(io.BytesIO(elf))
    assert (file["e_machine"], file["e_type"]) == ("EM_RISCV", "ET_EXEC")
    segments = [(s["p_vaddr"], s["p_filesz"], s["p_memsz"], s["p_flags"]) for s in file.iter_segments()]
    assert segments == [
        (0x80200000, 8, 8, 5),
        (0x80200010, 16, 16, 6),
        (0x80200020, 0, 4096, 6),
    ]
    symbols = {
        s.name: (s["st_value"], s["st_info"]["bind"]) for s in file.get_section_by_name(".symtab").iter_symbols()
    }
    assert symbols["UART"] == (0x10000000, "STB_LOCAL")
    assert symbols["room"] == (0x80200020, "STB_LOCAL")
    assert symbols["_start"] == (0x80200000, "STB_GLOBAL")
    assert symbols["table"] == (0x80200010, "STB_GLOBAL")
    assert segments[0][0] % 16 == 0


def test_entry_base_lines_and_listing() -> None:
    program = assemble("nop\n\n.org 0x80200010\n_start:\n  li a0, 0x12345678\n  ret # back\n", base=0x80200000)
    assert program.entry == 0x80200010
    assert program.lines == ((0x80200000, 1), (0x80200010, 5), (0x80200014, 5), (0x80200018, 6))
    assert program.line_at(0x80200014) == 5
    assert program.line_at(0x80200008) is None
    assert "    80200018: 00008067      6    ret # back" in program.listing().splitlines()
    assert assemble(".org 0x80000000\nnop").entry == 0x80000000
    assert assemble("nop").base == DEFAULT_BASE


def test_words_of_one_statement() -> None:
    assert words_of("li a0, 0x12345678", 0) == [0x12345537, 0x67850513 & ~0x7F | 0x1B]
    assert words_of("j 0x80200000", 0x80200010) == [0xFF1FF06F]


@pytest.mark.parametrize(
    ("source", "line", "column", "key", "words"),
    [
        ("nop\n  adddi a0, a0, 1", 2, 3, "unknown-mnemonic-close", "`addi`"),
        ("qwertyuiop a0", 1, 1, "unknown-mnemonic", "qwertyuiop"),
        ("addi a0, a0, 2048", 1, 14, "immediate", "-2048 to 2047"),
        ("addi a0, a0", 1, 1, "operand-count", "addi rd, rs1, imm"),
        ("ret a0", 1, 5, "operand-none", "no operands"),
        ("add a0, 5, a1", 1, 9, "operand-register", "register"),
        ("add a0, a1, a32", 1, 13, "undefined", "a32"),
        ("lw a0, 8(nothing)", 1, 8, "operand-memory", "8(sp)"),
        ("slli a0, a0, 64", 1, 14, "immediate", "0 to 63"),
        ("slliw a0, a0, 32", 1, 15, "immediate", "0 to 31"),
        ("lui a0, 0x100000", 1, 9, "immediate", "0 to 1048575"),
        ("csrr a0, mstatsu", 1, 10, "operand-csr-close", "`mstatus`"),
        ("csrr a0, 4096", 1, 10, "operand-csr", "0xfff"),
        ("csrwi mie, 32", 1, 12, "immediate", "0 to 31"),
        ("j loop", 1, 3, "undefined", "loop"),
        ("loop: j lop", 1, 9, "undefined-close", "`loop`"),
        ("beqz a0, 1b", 1, 10, "undefined-backward", "1"),
        ("beqz a0, 1f", 1, 10, "undefined-forward", "1"),
        ("a: nop\na: nop", 2, 1, "duplicate", "line 1"),
        ("sp: nop", 1, 1, "register-name", "sp"),
        ("far: .space 5000\nbeqz a0, far", 2, 10, "branch-far", "-4096 to 4094"),
        (".space 2000000\nj 0x80200000", 2, 3, "jump-far", "call"),
        ("j 0x80200001", 1, 3, "target-odd", "80200001"),
        ("c.j . + 2048", 1, 5, "jump-far", "-2048 to 2046"),
        ("c.lw a0, 2(a1)", 1, 10, "immediate-step", "multiple of 4"),
        ("c.lw a0, 128(a1)", 1, 10, "immediate", "0 to 124"),
        ("c.lw a0, 4(t0)", 1, 10, "register-range", "s0 to a5"),
        ("c.sub a0, sp", 1, 11, "register-range", "s0 to a5"),
        ("c.lwsp a0, 4(a1)", 1, 12, "register-other", "`sp`"),
        ("c.addi16sp a0, 16", 1, 12, "register-other", "`sp`"),
        ("c.addi16sp sp, 0", 1, 12, "reserved", "imm = 0"),
        ("c.addi4spn a0, sp, 0", 1, 12, "reserved", "imm = 0"),
        ("c.lui sp, 1", 1, 7, "reserved", "rd = 2"),
        ("c.lui a0, 32", 1, 11, "immediate", "0 to 31"),
        ("c.mv a0, zero", 1, 6, "reserved", "rs2 = 0"),
        ("c.jr zero", 1, 6, "reserved", "rs1 = 0"),
        ("la a0, 0x12345678ab", 1, 8, "pcrel-far", "2 GiB"),
        ("x: lui a0, %hi(x)", 1, 16, "high-far", "`la`"),
        ("x: addi a0, a0, %pcrel_lo(x)", 1, 17, "pcrel-label", "%pcrel_hi"),
        ("x: li a0, x", 1, 11, "address-li", "`la`"),
        ("li a0, %got(x)", 1, 8, "unknown-relocation", "%hi"),
        ("li a0, 1 + %hi(x)", 1, 12, "relocation-place", "%hi"),
        ("li a0, 1 +", 1, 11, "expected-value", "missing"),
        ("li a0, (1 + 2", 1, 14, "expected-close", "`)`"),
        ("li a0, 1 2", 1, 10, "expected-end", "`2`"),
        ("li a0, 1 / 0", 1, 12, "division", "zero"),
        ("li a0, 1 << 64", 1, 13, "shift", "0 to 63"),
        ("li a0, 12ab", 1, 8, "number", "12ab"),
        ("li a0, 0x12345678123456781", 1, 8, "number-large", "64 bits"),
        ("li a0, 'ab'", 1, 8, "character-constant", "'A'"),
        ('.ascii "abc', 1, 8, "string-unterminated", '"'),
        ('.ascii "a\\qc"', 1, 10, "escape", "\\q"),
        ("nop /* open", 1, 5, "comment-unterminated", "*/"),
        ("nop @ nop", 1, 5, "character", "@"),
        (".wrod 1", 1, 1, "unknown-directive-close", ".word"),
        (".xyzzy 1", 1, 1, "unknown-directive", ".xyzzy"),
        (".byte 256", 1, 7, "directive-range", "255"),
        (".balign 3", 1, 9, "power-of-two", "3"),
        (".align 20", 1, 8, "directive-range", "16"),
        (".space end\nend:", 1, 8, "not-yet", "end"),
        (".bss\n.word 1", 2, 1, "bss-content", ".bss"),
        (".bss\nnop", 2, 1, "bss-content", ".bss"),
        (".data\n.org 5", 2, 1, "org-section", ".data"),
        ("nop\n.org 0x80000000", 2, 6, "org-backward", "80200004"),
        (".byte 1\nnop", 2, 1, "instruction-alignment", "80200001"),
        (".equ a, b\n.equ b, a\nli a0, a", 2, 9, "circular", "a"),
        (".equ a", 1, 1, "directive-form", ".equ name, value"),
        ("fence x, w", 1, 7, "operand-fence", "i, o, r, w"),
        ("fadd.s fa0, a0, fa1", 1, 13, "operand-float", "floating-point"),
        ("fmv.d fa0, a0", 1, 12, "operand-float", "fmv.d frd, frs"),
        ("fadd.s fa0, fa1, fa2, up", 1, 23, "operand-rounding", "rup"),
        ("c.fld fa0, 8(t0)", 1, 12, "register-range", "s0 to a5"),
        ("c.fld ft0, 8(a0)", 1, 7, "register-range", "fs0 to fa5"),
        ("fa0: nop", 1, 1, "register-name", "fa0"),
        ("lr.w a0, 4(a1)", 1, 10, "operand-offset", "(a0)"),
        (".space 5000000", 1, 1, "too-large", "4 MiB"),
        (f".bss\n.space {BSS_LIMIT}\n.space 1", 3, 1, "too-large", "512 MiB"),
        (".org 0xfffffffffffffff8\nnop\nnop\nnop", 2, 1, "overlap", ".text"),
        ("add a0, a0,", 1, 12, "expected-value", "missing"),
        (f"li a0, {'-' * 101}1", 1, 108, "nesting", "100"),
    ],
)  # fmt: skip
def test_an_error_points_at_its_cause_and_says_what_is_right(
    source: str, line: int, column: int, key: str, words: str
) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(source, "file.s")
    error = caught.value
    assert error.errors[0][:2] == (line, column), error.errors
    assert error.diagnostics[0].key == f"assembly.{key}", error.errors
    assert words in error.errors[0][2]
    assert error.problem.key == "assembly"
    assert error.problem.message == error.errors[0][2]
    assert error.problem.params["line"] == line
    assert error.problem.params["column"] == column
    assert error.problem.params["source"] == "file.s"


def test_every_message_is_one_that_some_source_causes() -> None:
    """So that no sentence is dead: the cases above, and the one that needs a large source."""
    marks = test_an_error_points_at_its_cause_and_says_what_is_right.pytestmark
    caused = {case[3] for mark in marks if mark.name == "parametrize" for case in mark.args[1]}
    assert set(MESSAGES) - caused == {"too-many-statements"}


def test_errors_are_collected_in_the_order_of_lines_up_to_a_limit() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("\n".join(f"bad{i} a0" for i in range(50)))
    assert [error[0] for error in caught.value.errors] == list(range(1, ERROR_LIMIT + 1))
    with pytest.raises(AssemblyError) as caught:
        assemble("nop\naddi a0, a0, 9999\nfoo\nj nowhere\n")
    assert [error[0] for error in caught.value.errors] == [3]  # ranges are looked at once everything has a place


@pytest.mark.parametrize(
    "source",
    [
        "\n".join(f".equ a{i}, a{i + 1} + a{i + 1}" for i in range(99)) + "\n.equ a99, 1\nli a0, a0x\n",
        "\n".join(f".equ a{i}, a{i + 1}" for i in range(5000)) + "\n.equ a5000, 1\n",
        "li a0, " + "(" * 5000,
        "li a0, " + "1+" * 50000 + "1",
        ".space 4194304\n" * 3,
        ".fill 4194304, 8, 1",
        "/*" * 10000,
        '"' * 10000,
        "nop;" * 20_001,
        "\0\x01\x7f\u3042\U0001f600",
        "a" * 200_000,
        "la a0, x\n" * 20000,
        "j " + "9" * 10000 + "f",
    ],
    ids=range(13),
)  # fmt: skip
def test_a_hostile_source_is_refused_with_an_error(source: str) -> None:
    with pytest.raises(AssemblyError):
        assemble(source)


@pytest.mark.parametrize("source", ["1:" * 19000 + "j 1b", ";" * 250_000, "la a0, .\n" * 5000], ids=range(3))
def test_an_odd_source_is_a_program_all_the_same(source: str) -> None:
    assemble(source)


def test_shared_definitions_are_worked_out_once() -> None:
    source = "\n".join(f".equ c{i}, b{i + 1} + b{i + 1}\n.equ b{i}, c{i}" for i in range(40))
    program = assemble(source + "\n.equ b40, 1\nli a1, b0\n")
    assert program.symbols["b0"] == 1 << 40


WORDS = (
    "addi",
    "a0",
    "1f",
    "1:",
    "x:",
    "%hi(",
    ".word",
    ".equ",
    "0x",
    "99999999999",
    "li",
    "la",
    "sp",
    ".org",
)
FRAGMENTS = st.sampled_from([*WORDS, *",()'\"\\+-;#=. \n", "<<", "/*", "*/", ".space", ".align", "csrr", "mstatus"])


@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=40).map("".join))
@settings(max_examples=500, deadline=None)
def test_any_text_is_assembled_or_refused(source: str) -> None:
    try:
        program = assemble(source)
    except AssemblyError as error:
        for line, column, message in error.errors:
            assert 1 <= line <= source.count("\n") + 1
            assert column >= 1
            assert message
    else:
        binutils_size = sum(len(section.content) for section in program.sections)
        assert len(program.elf()) >= binutils_size


def test_a_program_disassembles_to_itself() -> None:
    source = resources.files(CALLER).joinpath("hello/hello.s").read_text(encoding="utf-8")
    text = assemble(source).sections[0]
    for (word,) in struct.iter_unpack("<I", text.content):
        assert words_of(disassemble(word, text.address), text.address) == [word]
