"""The headless commands as a script or a grader uses them: output, exit status, trace, refusals."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from engine import guests, headless
from engine.headless import STATUS_HELP, Status
from engine.machine.loader import inspect
from tests.support.qemu import run_qemu

STACKS = ("bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist")
FINISHER = """
_start: li t0, 0x100000
        li t1, {word}
        sw t1, 0(t0)
here:   j here
"""


class Outcome(NamedTuple):
    status: int
    output: str
    said: str


Ringside = Callable[..., Outcome]


#: Reads sector 1, adds the byte to itself, writes it back, reads it again and ends with it as its status.
DISK_READER = """
_start:
        li      s0, 0x10001000
        li      t0, 3
        sw      t0, 0x70(s0)
        li      t0, 1
        sw      t0, 0x24(s0)
        sw      t0, 0x20(s0)
        li      t0, 11
        sw      t0, 0x70(s0)
        li      t0, 4
        sw      t0, 0x38(s0)
        la      t0, descriptors
        sw      t0, 0x80(s0)
        la      t0, available
        sw      t0, 0x90(s0)
        la      t0, used
        sw      t0, 0xa0(s0)
        li      t0, 1
        sw      t0, 0x44(s0)
        li      t0, 15
        sw      t0, 0x70(s0)
        la      t0, descriptors
        la      t1, header
        sd      t1, 0(t0)
        la      t1, sector
        sd      t1, 16(t0)
        la      t1, status
        sd      t1, 32(t0)
        call    request                 # read
        la      t1, sector
        lbu     t2, 0(t1)
        add     t2, t2, t2
        sb      t2, 0(t1)
        la      t1, header
        li      t3, 1
        sw      t3, 0(t1)
        la      t1, descriptors
        sh      t3, 28(t1)
        call    request                 # write
        la      t1, sector
        sb      zero, 0(t1)
        la      t1, header
        sw      zero, 0(t1)
        la      t1, descriptors
        li      t3, 3
        sh      t3, 28(t1)
        call    request                 # read
        la      t1, sector
        lbu     t2, 0(t1)
        slli    t2, t2, 16
        li      t3, 0x3333
        or      t2, t2, t3
        li      t1, 0x100000
        sw      t2, 0(t1)
here:   j       here
request:
        la      t1, available
        lhu     t2, 2(t1)
        addi    t2, t2, 1
        sh      t2, 2(t1)
        sw      zero, 0x50(s0)
        ret
.data
.align 4
descriptors:
        .dword  0
        .word   16, 0x00010001
        .dword  0
        .word   512, 0x00020003
        .dword  0
        .word   1, 2
        .zero   16
available: .zero 32
used:   .zero   64
header: .dword  0, 1
sector: .zero   512
status: .byte   9
"""


@pytest.fixture
def ringside(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> Ringside:
    """Run a command; `source` is written to program.s first, which then is the image."""

    def run(*arguments: object, source: str | None = None) -> Outcome:
        parser = argparse.ArgumentParser(prog="ringside")
        headless.add_commands(parser.add_subparsers(required=True))
        words = [str(word) for word in arguments]
        if source is not None:
            path = tmp_path / "program.s"
            path.write_text(source)
            words.append(str(path))
        try:
            options = parser.parse_args(words)
            status = int(options.func(options))
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        sys.stdout.flush()
        output, said = capfdbinary.readouterr()
        assert b"Traceback" not in said
        return Outcome(status, output.decode(errors="replace"), said.decode())

    return run


# -- run -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("on", STACKS)
def test_hello_says_what_it_says_on_qemu(on: str, ringside: Ringside, tmp_path: Path) -> None:
    kernel = tmp_path / "hello.elf"
    kernel.write_bytes(guests.load_image("hello"))
    outcome = ringside("run", "hello", "--on", on)
    assert outcome.status == 0
    printed = outcome.output.replace("\r\n", "\n")
    assert len(printed) > 5
    assert run_qemu(kernel).output.endswith(printed)


@pytest.mark.parametrize("on", STACKS)
@pytest.mark.parametrize(
    ("word", "status"), [("0x5555", 0), ("0x73333", 7), ("0x1003333", 255), ("0x3333", 1)]
)
def test_the_finisher_gives_the_status(on: str, word: str, status: int, ringside: Ringside) -> None:
    assert ringside("run", "--on", on, source=FINISHER.format(word=word)).status == status


@pytest.mark.parametrize("on", STACKS)
def test_a_disk_is_in_the_guest_and_the_file_stays_as_it_is(on: str, ringside: Ringside, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(512) + b"\x07" * 512)
    assert ringside("run", "--on", on, "--disk", disk, source=DISK_READER).status == 7 << 1
    assert disk.read_bytes() == bytes(512) + b"\x07" * 512


def test_a_disk_that_is_none_is_refused(ringside: Ringside, tmp_path: Path) -> None:
    for content, why in ((b"", "is empty"), (b"QFI\xfb", "in the format qcow2")):
        (tmp_path / "disk").write_bytes(content)
        outcome = ringside("run", "hello", "--disk", tmp_path / "disk")
        assert outcome.status == Status.REFUSED
        assert why in outcome.said
    assert ringside("run", "hello", "--disk", tmp_path / "none").status == Status.REFUSED


@pytest.mark.parametrize("on", STACKS)
@pytest.mark.parametrize(("reason", "status"), [(0, 0), (1, 1)])
def test_sbi_reset_gives_the_status(on: str, reason: int, status: int, ringside: Ringside) -> None:
    source = f"_start: li a0, 0\n li a1, {reason}\n li a6, 0\n li a7, 0x53525354\n ecall\nhere: j here\n"
    assert ringside("run", "--on", on, source=source).status == status


@pytest.mark.parametrize("on", STACKS)
def test_tohost_ends_a_program_as_under_spike(on: str, ringside: Ringside) -> None:
    source = """
            .globl  tohost
    _start: la      t0, tohost
            li      t1, (5 << 1) | 1
            sd      t1, 0(t0)
    here:   j       here
            .data
            .balign 8
    tohost: .dword  0
    """
    assert ringside("run", "--on", on, source=source).status == 5


@pytest.mark.parametrize("on", STACKS)
def test_a_guest_that_spins_reaches_the_limit(on: str, ringside: Ringside) -> None:
    outcome = ringside("run", "--on", on, "--max-instructions", 12_345, source="_start: j _start\n")
    assert outcome.status == Status.LIMIT
    assert "stopped after 12345 instructions" in outcome.said


@pytest.mark.parametrize("on", STACKS)
def test_a_guest_that_jumps_to_nowhere_is_dead(on: str, ringside: Ringside) -> None:
    source = "_start: li t0, 0x1000\n jr t0\n"
    outcome = ringside("run", "--on", on, "--max-instructions", 100_000, source=source)
    assert outcome.status == Status.DIED
    assert "ringside: the guest died: " in outcome.said
    assert "0x1000" in outcome.said


@pytest.mark.parametrize("on", STACKS)
def test_a_guest_that_sleeps_for_ever_is_reported(on: str, ringside: Ringside) -> None:
    outcome = ringside("run", "--on", on, source="_start: wfi\n j _start\n")
    assert outcome.status == Status.WAITS
    assert "waits for input" in outcome.said


ECHO = """
_start: li   t0, 0x10000000
next:   lbu  t1, 5(t0)
        andi t1, t1, 1
        beqz t1, next
        lbu  t1, 0(t0)
        li   t2, 'q'
        beq  t1, t2, done
        sb   t1, 0(t0)
        j    next
done:   li   t0, 0x100000
        li   t1, 0x5555
        sw   t1, 0(t0)
here:   j    here
"""


@pytest.mark.parametrize("on", STACKS)
def test_input_reaches_a_guest_that_polls(on: str, ringside: Ringside, tmp_path: Path) -> None:
    (tmp_path / "typed").write_bytes(b"hello, q")
    outcome = ringside("run", "--on", on, "--input", tmp_path / "typed", source=ECHO)
    assert (outcome.status, outcome.output) == (0, "hello, ")


@pytest.mark.parametrize("on", STACKS)
def test_a_script_runs_in_the_shell_of_ringos(on: str, ringside: Ringside, tmp_path: Path) -> None:
    script = "".join(f"echo line {number}\n" for number in range(40)) + "poweroff 3\n"
    (tmp_path / "script").write_text(script)
    outcome = ringside("run", "ringos", "--on", on, "--append", "", "--input", tmp_path / "script")
    assert outcome.status == 3
    printed = re.findall(r"^line (\d+)\r?$", outcome.output, re.M)
    assert printed == [str(number) for number in range(40)]


def test_two_runs_leave_the_same_trace(ringside: Ringside, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("work switch 5\npoweroff\n")
    runs = []
    words = ("run", "ringos", "--append", "", "--input", tmp_path / "script", "--stats", "--trace")
    for name in ("one", "two"):
        outcome = ringside(*words, tmp_path / name)
        runs.append((outcome, (tmp_path / name).read_bytes()))
    assert runs[0] == runs[1]
    outcome, trace = runs[0]
    records = [json.loads(line) for line in trace.splitlines()]
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    traps = re.search(r"([\d,]+)  traps", outcome.said)
    assert traps is not None
    assert int(traps[1].replace(",", "")) == len(records)
    rows = re.findall(r"^ *([\d,]+)  .*; .* > ", outcome.said, re.M)
    assert sum(int(row.replace(",", "")) for row in rows) == len(records)


#: Looks for its arguments in the device tree (a1) and asks whether hart 1 is there, stopped.
TREE_SEARCH = """
_start: mv      s1, a1
        li      s2, 0x100000
        li      s3, 0x73333
        li      t2, 0x313d636261        # "abc=1"
        lbu     t0, 6(s1)               # the tree's length, big-endian, is below 64 KiB
        lbu     t1, 7(s1)
        slli    t0, t0, 8
        or      t0, t0, t1
        add     t0, t0, s1
next:   li      t3, 0
        li      t4, 5
load:   addi    t4, t4, -1
        add     t5, s1, t4
        lbu     t5, 0(t5)
        slli    t3, t3, 8
        or      t3, t3, t5
        bnez    t4, load
        beq     t3, t2, found
        addi    s1, s1, 1
        bltu    s1, t0, next
        j       done
found:  li      a0, 1
        li      a6, 2
        li      a7, 0x48534d
        ecall
        bnez    a0, done
        li      t0, 1                   # STOPPED
        bne     a1, t0, done
        li      s3, 0x5555
done:   sw      s3, 0(s2)
here:   j       here
"""


def test_arguments_and_harts_reach_the_guest(ringside: Ringside) -> None:
    outcome = ringside("run", "--append", "abc=1", "--harts", 2, "--memory", "32M", source=TREE_SEARCH)
    assert outcome.status == 0


def test_a_terminal_is_raw_until_ctrl_a_x() -> None:
    """In a process of its own, because the terminal is standard input."""
    program = (
        "import argparse\nfrom engine import headless\nparser = argparse.ArgumentParser()\n"
        "headless.add_commands(parser.add_subparsers())\noptions = parser.parse_args()\n"
        "raise SystemExit(int(options.func(options)))\n"
    )
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program, "run", "ringos", "--append", ""],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(headless.__file__).parents[1])},
    ) as process:
        assert process.stdout is not None
        shown = b""
        try:
            while b"$ " not in shown:
                shown += os.read(process.stdout.fileno(), 4096) or pytest.fail(shown.decode())
            os.write(master, b"echo a\x01\x01b\r")
            while b"\nab" not in shown.replace(b"\x01", b""):
                shown += os.read(process.stdout.fileno(), 4096) or pytest.fail(shown.decode())
            os.write(master, b"\x01x")
            assert process.wait(timeout=30) == Status.QUIT
        finally:
            process.kill()
            os.close(master)
            os.close(slave)


@pytest.mark.parametrize("on", STACKS)
def test_a_run_goes_on_from_its_snapshot_exactly(on: str, ringside: Ringside, tmp_path: Path) -> None:
    run = ("--append", "run=demo", "--on", on)
    traces = [tmp_path / name for name in ("whole", "first", "second")]
    file = tmp_path / "middle.ringside"
    whole = ringside("run", "ringos", *run, "--max-instructions", 90_000, "--trace", traces[0])
    first = ringside(
        "run", "ringos", *run, "--max-instructions", 43_210, "--trace", traces[1], "--snapshot-out", file
    )
    second = ringside("run", "--snapshot-in", file, "--max-instructions", 90_000, "--trace", traces[2])
    assert (whole.status, first.status, second.status) == (Status.LIMIT,) * 3
    assert first.output + second.output == whole.output
    assert traces[1].read_bytes() + traces[2].read_bytes() == traces[0].read_bytes()
    assert len(traces[2].read_bytes().splitlines()) > 20


def test_a_trace_for_viewers_has_the_records_of_the_lines(ringside: Ringside, tmp_path: Path) -> None:
    lines, viewer = tmp_path / "t.jsonl", tmp_path / "t.json"
    for path in (lines, viewer):
        assert ringside("run", "hello", "--trace", path).status == 0
    events = json.loads(viewer.read_text())["traceEvents"]
    records = [event["args"] for event in events if "sequence" in event.get("args", {})]
    assert records == [json.loads(line) for line in lines.read_text().splitlines()]


def test_a_damaged_snapshot_is_refused_and_what_it_decides(ringside: Ringside, tmp_path: Path) -> None:
    file = tmp_path / "hello.ringside"
    assert ringside("run", "hello", "--snapshot-out", file).status == 0
    for more, words in (
        (("--on", "bare-metal"), "cannot be used with --on"),
        (("hello",), "cannot be used with an image"),
        (("--memory", "32M"), "cannot be used with --memory"),
    ):
        refused = ringside("run", "--snapshot-in", file, *more)
        assert refused.status == Status.REFUSED
        assert words in refused.said
    content = bytearray(file.read_bytes())
    content[-500] ^= 4
    file.write_bytes(content)
    refused = ringside("run", "--snapshot-in", file)
    assert refused.status == Status.REFUSED
    assert "damaged in its" in refused.said


# -- refusals --------------------------------------------------------------------------------------
def test_what_cannot_run_is_refused_in_a_sentence(ringside: Ringside, tmp_path: Path) -> None:
    (tmp_path / "x86.elf").write_bytes(b"\x7fELF\2\1\1" + bytes(11) + b"\x3e" + bytes(60))
    (tmp_path / "latin.s").write_bytes(b"# caf\xe9\n")
    for arguments, words in (
        ([tmp_path / "nothing"], "no such guest comes with Ringside"),
        ([tmp_path], "Is a directory"),
        ([tmp_path / "x86.elf"], "not for RISC-V"),
        ([tmp_path / "latin.s"], "not UTF-8"),
        (["hello", "--trace", tmp_path / "no" / "trace"], "No such file"),
        (["hello", "--input", tmp_path / "nothing"], "No such file"),
    ):
        outcome = ringside("run", *arguments)
        assert outcome.status == Status.REFUSED, arguments
        assert outcome.output == ""
        assert words in outcome.said
        assert outcome.said.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [("--memory", "1M"), ("--memory", "2G"), ("--memory", "lots"), ("--harts", "0"), ("--harts", "9"),
     ("--max-instructions", "-1"), ("--on", "paper")],
)  # fmt: skip
def test_options_out_of_range_are_usage_errors(option: str, value: str, ringside: Ringside) -> None:
    outcome = ringside("run", "hello", option, value)
    assert outcome.status == 2
    assert value in outcome.said


def test_every_status_has_its_sentence() -> None:
    assert set(STATUS_HELP) == set(Status)


# -- asm and disasm --------------------------------------------------------------------------------
def test_asm_writes_what_run_and_disasm_read(ringside: Ringside, tmp_path: Path) -> None:
    outcome = ringside("asm", "--listing", source="_start: li a0, 5\n        ret\n")
    assert outcome.status == 0
    assert "80200000: 00500513      1  _start: li a0, 5" in outcome.output
    image = inspect((tmp_path / "program.elf").read_bytes(), "program")
    assert image.entry == 0x80200000
    outcome = ringside("disasm", tmp_path / "program.elf")
    assert outcome.output.split() == [
        "_start:", "80200000:", "00500513", "li", "a0,", "5", "80200004:", "00008067", "ret",
    ]  # fmt: skip
    assert ringside("asm", tmp_path / "program.s", "-o", tmp_path / "other.elf").output == ""
    assert (tmp_path / "other.elf").read_bytes() == (tmp_path / "program.elf").read_bytes()


def test_assembly_errors_point_at_line_and_column(ringside: Ringside, tmp_path: Path) -> None:
    outcome = ringside("asm", source="_start: nop\n        addd a0, a1, a2\n        li t9, 1\n")
    assert outcome.status == 1
    lines = outcome.said.splitlines()
    places = [line.split(": ")[0].removeprefix(f"{tmp_path}/program.s") for line in lines]
    assert places == [":2:9", ":3:12"]
    assert not (tmp_path / "program.elf").exists()
    assert ringside("run", tmp_path / "program.s").status == Status.REFUSED


def test_disasm_shows_only_code(ringside: Ringside) -> None:
    outcome = ringside("disasm", "hello")
    assert outcome.output.startswith("\n_start:\n        80200000:  ")
    assert ringside("disasm", "/nonexistent").status == 1
