"""The debugger's door: the protocol by its manual's rules, a client that talks nonsense, and the real gdb.

gdb itself is what the stub is compared with: it finds the symbols, disassembles what it reads, and judges our
stops and our time travel. Every run of it has a limit.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import guests
from engine.debugger import Debugger
from engine.document import GuestRow, HostRow
from engine.gdb import FIRST_CSR, PACKET_BYTES, PC, Stub, frame
from engine.headless import GUEST
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.isa.csrs import CSR_NUMBERS
from engine.isa.table import FLOAT_REGISTERS, REGISTERS
from engine.machine.loader import KERNEL_BASE, LoadedImage, inspect
from engine.trace.export import to_object
from tests.support.checks import ROOT
from tests.support.provide import require
from tests.support.run import CONFIGURATIONS

PATIENCE_SECONDS = 120
COUNTER = """
_start: la t0, counter
        li t1, 0
loop:   addi t1, t1, 1
        sd t1, 0(t0)
        j loop
        .balign 8
counter: .dword 0
"""


def debugger(image: LoadedImage, on: str = "trap-and-emulate", vcpus: int = 1) -> tuple[Debugger, bytearray]:
    shown = bytearray()
    host = HostRow(1, "host", 0.0, 0.0, vcpus, 64, *msgspec.structs.astuple(Configuration.parse(on)))
    guest = GuestRow(GUEST, "guest", 1, "image", vcpus, 16, "")
    return Debugger.alone(host, guest, image, shown.extend), shown


def builtin(name: str) -> LoadedImage:
    return inspect(guests.load_image(name), name)


def counter() -> LoadedImage:
    return inspect(assemble(COUNTER, "counter.s").elf(), "counter")


class Client:
    """Speaks to a stub without acknowledgements."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        stub.feed(frame(b"QStartNoAckMode"))

    def ask(self, body: bytes | str) -> str:
        body = body.encode() if isinstance(body, str) else body
        out = self.stub.feed(frame(body))
        slices = 0
        while self.stub.running:
            out += self.stub.advance()
            slices += 1
            assert slices < 1_000, "it never stops"
        replies = re.findall(rb"\$(.*?)#[0-9a-f]{2}", out, re.DOTALL)
        return replies[-1].decode("latin-1") if replies else ""

    def pc(self) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{PC:x}")), "little")


@pytest.fixture
def client() -> Client:
    return Client(Stub(debugger(counter())[0]))


# -- packets ---------------------------------------------------------------------------------------
def test_a_checksum_is_the_sum_of_what_is_sent() -> None:
    assert frame(b"OK") == b"$OK#9a"
    assert frame(b"a}b")[1:5] == b"a}\x5db"


def test_packets_are_acknowledged_until_both_agree_not_to() -> None:
    stub = Stub(debugger(counter())[0])
    assert stub.feed(b"$qC#b4") == b"+" + frame(b"QC1")
    assert stub.feed(b"-") == frame(b"QC1"), "sent again when it arrived damaged"
    assert stub.feed(b"+") == b""
    assert stub.feed(b"-") == b"", "and not after it was acknowledged"
    assert stub.feed(b"$qC#00") == b"-"
    assert stub.feed(b"$QStartNoAckMode#b0") == b"+" + frame(b"OK")
    assert stub.feed(b"$qC#b4") == frame(b"QC1")


def test_a_packet_may_come_in_pieces_and_two_at_once() -> None:
    stub = Stub(debugger(counter())[0])
    assert [stub.feed(bytes([byte])) for byte in b"$qC#b"] == [b""] * 5
    assert stub.feed(b"4$qC#b4") == (b"+" + frame(b"QC1")) * 2


def test_a_packet_without_end_is_not_kept() -> None:
    stub = Stub(debugger(counter())[0])
    assert b"-" in stub.feed(b"$" + b"a" * 2 * PACKET_BYTES)
    assert stub.feed(b"$qC#b4") == b"+" + frame(b"QC1")


def test_unknown_packets_get_the_empty_reply(client: Client) -> None:
    assert [
        client.ask(body) for body in ("vMustReplyEmpty", "!", "qNonsense", "Z3,80200000,4", "Z4,0,4")
    ] == [""] * 5


@pytest.mark.parametrize(
    "body",
    ["m", "m,", "mzz,4", "m0", "p", "pfffff", "P0", "P0=12", "G00", "M80200000,4:00", "M80200000,1:zz",
     "Hg99", "T77", "Z0", "Z0,,", "vCont;x", "m-1,4", "qXfer:features:read:target.xml:1", "qRcmd,0",
     "c" + "f" * 17],
)  # fmt: skip
def test_a_wrong_packet_gets_an_error_and_changes_nothing(body: str, client: Client) -> None:
    before = client.ask("g")
    assert re.fullmatch(r"E[0-9a-f]{2}", client.ask(body))
    assert client.ask("g") == before


def test_every_register_is_described_once_and_can_be_read(client: Client) -> None:
    text, offset = "", 0
    while True:
        part = client.ask(f"qXfer:features:read:target.xml:{offset:x},3e8")
        text, offset = text + part[1:], offset + 1000
        if part[0] == "l":
            break
    registers = ET.fromstring(text).findall(".//reg")
    names = [register.get("name") for register in registers]
    assert names[:33] == [*REGISTERS, "pc"]
    assert names[33:65] == [*FLOAT_REGISTERS]
    assert set(names[65:]) == {*CSR_NUMBERS, "priv"}
    numbers = [int(register.get("regnum") or "") for register in registers]
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"[0-9a-f]{16}", client.ask(f"p{number:x}")) for number in numbers)


# -- registers and memory --------------------------------------------------------------------------
@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_registers_and_memory_can_be_changed(on: str) -> None:
    client = Client(Stub(debugger(counter(), on)[0]))
    client.ask("s")
    assert client.ask("P6=efbeadde00000000") == "OK"
    assert client.ask("p6") == "efbeadde00000000"
    assert client.ask("P0=ffffffffffffffff") == "OK"
    assert client.ask("p0") == "0" * 16
    assert client.ask("M80200100,4:01020304") == "OK"
    assert client.ask("m80200100,4") == "01020304"
    assert client.ask(b"X80200100,2:}\x03$".replace(b"}\x03$", b"#}")) == "OK"
    assert client.ask("m80200100,4") == "237d0304"
    scratch = FIRST_CSR + CSR_NUMBERS["sscratch"]
    assert client.ask(f"P{scratch:x}=0807060504030201") == "OK"
    assert client.ask(f"p{scratch:x}") == "0807060504030201"
    assert client.ask(f"P{FIRST_CSR + CSR_NUMBERS['mhartid']:x}={'0' * 16}") == "E1e"


def test_what_is_not_mapped_is_a_fault(client: Client) -> None:
    assert client.ask("m0,4") == "E14"
    assert client.ask("M0,1:00") == "E14"
    assert client.ask("Z2,0,8") == "E14"
    assert client.ask("m" + "f" * 16 + ",8") == "E14"
    end = KERNEL_BASE - (2 << 20) + (16 << 20)
    assert client.ask(f"m{end - 2:x},8") == "0000", "as much as there is"


# -- running ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_a_breakpoint_stops_before_its_instruction_every_time(on: str) -> None:
    subject, _ = debugger(counter(), on)
    client = Client(Stub(subject))
    store = subject.guest.image.symbols.address("loop")
    assert store is not None
    store += 4
    assert client.ask(f"Z0,{store:x},4") == "OK"
    for count in range(1, 4):
        assert client.ask("c") == "T05thread:1;"
        assert client.pc() == store
        assert client.ask("p6") == count.to_bytes(8, "little").hex()
    assert client.ask("bc") == "T05thread:1;"
    assert client.ask("p6") == (2).to_bytes(8, "little").hex()
    assert client.ask(f"z0,{store:x},4") == "OK"
    assert client.ask("bc") == "T05thread:1;replaylog:begin;"
    assert client.pc() == KERNEL_BASE


@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_a_watchpoint_stops_after_the_store_and_backward_before_it(on: str) -> None:
    subject, _ = debugger(counter(), on)
    client = Client(Stub(subject))
    at = subject.guest.image.symbols.address("counter")
    loop = subject.guest.image.symbols.address("loop")
    assert at is not None
    assert loop is not None
    assert client.ask(f"Z2,{at:x},8") == "OK"
    for count in (1, 2):
        assert client.ask("c") == f"T05thread:1;watch:{at:x};"
        assert client.ask(f"m{at:x},1") == f"{count:02x}"
        assert client.pc() == loop + 8
    assert client.ask("bc") == f"T05thread:1;watch:{at:x};"
    assert client.ask(f"m{at:x},1") == "01"
    assert client.pc() == loop + 4


@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_a_step_back_undoes_a_step(on: str) -> None:
    client = Client(Stub(debugger(builtin("ringos"), on)[0]))
    states = []
    for _ in range(40):
        states.append(client.ask("g"))
        assert client.ask("s") == "T05thread:1;"
    for state in reversed(states):
        assert client.ask("bs") == "T05thread:1;"
        assert client.ask("g") == state
    assert client.ask("bs") == "T05thread:1;replaylog:begin;"


@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_a_debugged_guest_does_what_it_would_have_done(on: str) -> None:
    free, said_freely = debugger(builtin("hello"), on)
    assert Client(Stub(free)).ask("c") == "W00"
    watched, said = debugger(builtin("hello"), on)
    client = Client(Stub(watched))
    assert client.ask(f"Z0,{watched.guest.image.symbols.address('print'):x},4") == "OK"
    while client.ask("c").startswith("T05"):
        client.ask("s")
        client.ask("bs")
        client.ask("s")
    assert said == said_freely
    assert len(said) > 5
    assert watched.world.trace.hash() == free.world.trace.hash()
    assert watched.world.position == free.world.position


def test_threads_are_vcpus() -> None:
    client = Client(Stub(debugger(builtin("ringos"), vcpus=2)[0]))
    assert client.ask("qfThreadInfo") == "m1,2"
    assert client.ask("qsThreadInfo") == "l"
    assert client.ask("Hg2") == "OK"
    assert client.ask("qC") == "QC2"
    assert bytes.fromhex(client.ask("qThreadExtraInfo,2")).startswith(b"vCPU 1 stopped")
    assert client.ask("T3") == "E01"


def test_a_guest_that_dies_can_be_looked_at_and_taken_back() -> None:
    subject, _ = debugger(inspect(assemble("_start: li t0, 64\n jr t0\n", "dies.s").elf(), "dies"))
    client = Client(Stub(subject))
    assert client.ask("c") == "T06thread:1;"
    assert client.ask("p5") == (64).to_bytes(8, "little").hex()
    assert client.ask("bc").endswith("replaylog:begin;")
    assert client.pc() == KERNEL_BASE
    assert client.ask("c") == "T06thread:1;"
    assert client.ask("c") == "X06"
    assert client.stub.finished


def test_ctrl_c_stops_a_guest_that_runs_or_sleeps() -> None:
    stub = Stub(debugger(counter())[0])
    stub.feed(frame(b"QStartNoAckMode"))
    assert stub.feed(b"\x03") == b"", "it does not run"
    assert stub.feed(frame(b"c")) == b""
    assert stub.advance() == b""
    assert stub.feed(b"\x03") == frame(b"T02thread:1;")
    assert not stub.running


def test_hanging_up_halts_and_detaching_lets_go() -> None:
    stub = Stub(debugger(counter())[0])
    stub.feed(frame(b"c"))
    stub.hang_up()
    assert not stub.running
    stub.attach()
    assert frame(b"OK") in stub.feed(frame(b"D"))
    stub.hang_up()
    assert stub.running
    stub.attach()
    assert not stub.running


def test_monitor_shows_the_traps_that_were_recorded() -> None:
    subject, _ = debugger(builtin("hello"))
    client = Client(Stub(subject))
    client.ask("s")
    client.ask("c")
    client = Client(Stub(subject))
    shown = bytes.fromhex(client.ask("qRcmd," + b"traps".hex())).decode().splitlines()
    records = [to_object(record.tobytes()) for record in subject.world.trace.latest(10)]
    assert len(shown) == len(records) > 0
    assert all(
        record["cause"] in line and record["pc"] in line for record, line in zip(records, shown, strict=True)
    )
    assert b"monitor traps" in bytes.fromhex(client.ask("qRcmd," + b"help".hex()))


# -- nonsense --------------------------------------------------------------------------------------
BODIES = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(
        [b"m", b"M", b"x", b"X", b"p", b"P", b"g", b"G", b"Z0,", b"Z2,", b"z", b"c", b"s", b"bs", b"bc", b"b",
         b"H", b"T", b"vCont;", b"vCont;s:", b"qSupported", b"qXfer:features:read:target.xml:", b"qRcmd,",
         b"qThreadExtraInfo,",
         b"qC", b"?", b"C05;", b"S", b"v", b""]
    ),
    st.one_of(st.binary(max_size=40), st.from_regex(rb"[0-9a-f]{0,17}[,;:=]?[0-9a-f]{0,17}", fullmatch=True)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=60), BODIES.map(frame), st.just(b"\x03"), st.just(b"-")), max_size=12
    )
)
def test_nonsense_is_answered_or_ignored(pieces: list[bytes]) -> None:
    stub = Stub(debugger(counter())[0])
    for piece in pieces:
        stub.feed(piece)
        for _ in range(2):
            if stub.running:
                stub.advance()
    stub.attach()
    assert stub.finished or frame(b"QC1") in stub.feed(frame(b"qC"))


# -- the real gdb ----------------------------------------------------------------------------------
@contextmanager
def waiting_guest(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`ringside run --gdb 0`, and the port that it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "webapp.cli", "run", "--gdb", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        assert process.stderr is not None
        said, port = b"", None
        while port is None:
            ready, _, _ = select.select([process.stderr], [], [], PATIENCE_SECONDS)
            assert ready, said
            piece = os.read(process.stderr.fileno(), 4096)
            assert piece, said
            said += piece
            port = re.search(rb"target remote :(\d+)'", said)
        yield process, int(port[1])
    finally:
        process.kill()
        process.communicate()


def gdb(port: int, image: str, *commands: str) -> str:
    words = [
        require("gdb"),
        "-nx",
        "-batch",
        "-ex",
        "set architecture riscv:rv64",
        "-ex",
        f"target remote :{port}",
    ]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(
        [*words, str(guests.image_path(image))],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_gdb_breaks_steps_back_and_watches_in_ringos(on: str, tmp_path: Path) -> None:
    with waiting_guest("ringos", "--on", on) as (process, port):
        said = gdb(
            port, "ringos",
            "break *kernel_main", "continue", "x/4i $pc", "info registers", "printf \"satp %#lx\\n\", $satp",
            "printf \"hart %d at %d\\n\", $mhartid, $priv",
            "stepi", "reverse-stepi", "printf \"back at %#lx sp %#lx\\n\", $pc, $sp",
            "watch *(long *)&current", "continue", "continue", "reverse-continue", "reverse-continue",
            "reverse-continue", "printf \"again at %#lx sp %#lx\\n\", $pc, $sp",
            "monitor traps", "info threads",
            "set $fa1 = 1.5", "set $frm = 2", "printf \"fa1 %g fcsr %d\\n\", $fa1, $fcsr", "kill",
        )  # fmt: skip
        assert process.wait(PATIENCE_SECONDS) == 130
    assert "Breakpoint 1, 0x" in said
    assert "fa1 1.5 fcsr 64" in said
    assert "in kernel_main ()" in said
    assert re.search(r"=> 0x\w+ <kernel_main>:\t", said)
    assert re.search(r"^t6 +0x", said, re.MULTILINE)
    assert "satp 0\n" in said
    assert "hart 0 at 1" in said
    changes = re.findall(r"Old value = (\d+)\nNew value = (\d+)", said)
    assert len(changes) == 4
    assert changes[0][0] == changes[3][1], "going back undoes both"
    assert changes[1] == changes[2][::-1]
    back, again = re.findall(r"(?:back|again) at (0x\w+ sp 0x\w+)", said)
    assert back == again, "reverse-stepi and reverse-continue lead to the breakpoint"
    assert "vCPU 0 runs, kernel" in said
    assert "warning" not in said.lower()


@pytest.mark.parametrize("on", CONFIGURATIONS)
def test_gdb_runs_hello_to_its_end_after_another_client_hung_up(on: str) -> None:
    with waiting_guest("hello", "--on", on) as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(b"$c#00\xff\x00nonsense$$$#zz")
        said = gdb(port, "hello", "break print", "continue", "stepi", "delete", "continue")
        assert "Breakpoint 1, 0x" in said
        assert "exited normally" in said
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
        assert len(output) > 5


def test_the_guest_gets_its_input_under_gdb(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("ps\npoweroff\n")
    with waiting_guest("ringos", "--append", "", "--input", str(lines)) as (process, port):
        assert "exited normally" in gdb(port, "ringos", "break panic", "continue")
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
    assert output.count(b"poweroff") == 1


def test_gdb_sees_the_exit_status(tmp_path: Path) -> None:
    source = tmp_path / "seven.s"
    source.write_text("_start: li t0, 0x100000\n li t1, 0x73333\n sw t1, 0(t0)\nhere: j here\n")
    with waiting_guest(str(source)) as (process, port):
        assert "exited with code 07" in gdb(port, "hello", "continue")
        assert process.wait(PATIENCE_SECONDS) == 7


def test_what_cannot_be_combined_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "webapp.cli", "run", "hello", "--gdb", "0", "--max-instructions", "5"],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 126
    assert "--max-instructions" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "webapp.cli", "run", "hello", "--gdb", port],
            capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 126
    assert port in done.stderr
    assert "Traceback" not in done.stderr
