"""gdb and a guest of a lab: who has the lab's time, what is kept of what gdb did, and clients that misbehave."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from engine import wire
from engine.commands import (
    AnyCommand,
    ConsoleInput,
    GdbQuery,
    GuestCreate,
    GuestRemove,
    GuestRename,
    GuestSet,
    HostCreate,
    ImageAssemble,
    LabPause,
    LabReset,
    LabRun,
    LabSpeed,
    LabStep,
    RegistersQuery,
)
from engine.gdb import PC, frame
from engine.worker import GDB_HELD, GDB_RUNNING, GDB_WAITING
from tests.engine.test_gdb import COUNTER, PATIENCE_SECONDS, gdb
from tests.engine.test_worker import Bench

LOOPBACK = "127.0.0.1"
TURNS = 4_000


class Client:
    """What gdb would say, over a socket; the worker turns while it waits."""

    def __init__(self, bench: Bench, port: int) -> None:
        self.bench = bench
        self.socket = socket.create_connection((LOOPBACK, port))
        self.socket.setblocking(False)
        self.heard = b""
        assert self.ask("QStartNoAckMode") == "OK"

    def send(self, body: str | bytes) -> None:
        self.socket.sendall(frame(body.encode() if isinstance(body, str) else body))

    def reply(self) -> str:
        for _ in range(TURNS):
            found = re.search(rb"\$(.*?)#[0-9a-f]{2}", self.heard, re.DOTALL)
            if found:
                self.heard = self.heard[found.end() :]
                return found[1].decode("latin-1")
            self.bench.turn(0.001)
            try:
                self.heard += self.socket.recv(1 << 16)
            except BlockingIOError:
                continue
        raise AssertionError("no reply came")

    def ask(self, body: str | bytes) -> str:
        self.send(body)
        return self.reply()

    def number(self, register: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{register:x}")), "little")

    def close(self) -> None:
        self.socket.close()
        for _ in range(5):
            self.bench.turn(0.01)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.open(gdb=LOOPBACK)
    yield bench
    for seat in bench.worker._seats.values():
        bench.worker._close_gdb(seat)


def _counter(bench: Bench) -> int:
    host = bench.done(HostCreate())["host"]
    image = bench.done(ImageAssemble("counter.s", COUNTER))["image"]
    guest: int = bench.done(GuestCreate(host, image))["guest"]
    return guest


def _port(bench: Bench, guest: int, *, opened: bool = True) -> Any:
    request = bench.ask(GdbQuery(guest, opened))
    answer = bench.until(wire.Answer, lambda message: message.request == request)
    return msgspec.msgpack.decode(answer.result)["port"]


def _refused(bench: Bench, request: int) -> str:
    return bench.until(wire.Refused, lambda message: message.request == request).problem.key


def _told(bench: Bench) -> Any:
    """What the next tick says of gdb."""
    tick = bench.until(wire.Tick)
    return msgspec.msgpack.decode(tick.content)["gdb"]


def test_gdb_holds_the_lab_and_gives_it_back(bench: Bench) -> None:
    guest = _counter(bench)
    bench.done(LabSpeed("max"))
    bench.done(LabRun())
    port = _port(bench, guest)
    assert _port(bench, guest) == port
    assert _told(bench) == [guest, LOOPBACK, port, GDB_WAITING]
    client = Client(bench, port)
    assert not bench.lab().document()["running"]
    assert _told(bench) == [guest, LOOPBACK, port, GDB_HELD]
    position = bench.lab().position
    for _ in range(20):
        bench.turn(0.05)
    assert bench.lab().position == position
    for command in (LabRun(), LabStep(), LabReset(), GuestRemove(guest)):
        assert _refused(bench, bench.do(command)) == "held-by-gdb"
    bench.done(GuestRename(guest, "debugged"))
    client.send("c")
    for _ in range(10):
        bench.turn(0.05)
    assert bench.lab().position > position
    assert _told(bench)[3] == GDB_RUNNING
    bench.done(LabPause())
    assert client.reply().startswith("T02")
    assert client.ask("D") == "OK"
    for _ in range(3):
        bench.turn(0.05)
    assert bench.lab().document()["running"], "it ran when gdb came"
    client.close()
    assert _port(bench, guest, opened=False) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port))


def test_what_gdb_did_is_in_the_log(bench: Bench) -> None:
    guest = _counter(bench)
    bench.lab().run(1_000)
    bench.said.clear()
    port = _port(bench, guest)
    client = Client(bench, port)
    loop = client.number(PC)
    assert client.ask(f"Z0,{loop:x},4") == "OK"
    for _ in range(5):
        assert client.ask("c").startswith("T05")
        assert client.number(PC) == loop
    assert client.ask("bs").startswith("T05")
    assert client.ask("bc").startswith("T05")
    assert client.ask("P6=4000000000000000") == "OK"
    assert client.ask("M80200100,4:01020304") == "OK"
    for _ in range(3):
        client.ask("s")
    assert client.ask("P21=000000000000f03f") == "OK"
    client.close()
    entries = [message.entry for message in bench.said if isinstance(message, wire.Done)]
    assert len(entries) >= 5
    replayed = Bench()
    replayed.open()
    _counter(replayed)
    for entry in entries:
        lab = replayed.lab()
        while lab.position < entry.position:
            lab.run(entry.position - lab.position)
        lab.apply(msgspec.msgpack.decode(entry.command, type=AnyCommand))
    one, other = bench.lab(), replayed.lab()
    assert other.position == one.position
    assert other.query(RegistersQuery(guest)) == one.query(RegistersQuery(guest))
    assert other.world.guest(guest).hart(0).f[0] == one.world.guest(guest).hart(0).f[0] == 0x3FF << 52


def test_pages_hear_where_gdb_went(bench: Bench) -> None:
    guest = _counter(bench)
    client = Client(bench, _port(bench, guest))
    bench.said.clear()
    for _ in range(30):
        client.ask("s")
    for _ in range(10):
        bench.turn(0.1)
    jumps = [message for message in bench.said if isinstance(message, wire.Done) and message.jumped]
    assert 1 <= len(jumps) < 30, "quick steps are told together"
    assert jumps[-1].entry.position == bench.lab().position
    client.close()


def test_a_client_that_hangs_up_leaves_the_lab_paused_and_free(bench: Bench) -> None:
    guest = _counter(bench)
    bench.done(LabRun())
    port = _port(bench, guest)
    client = Client(bench, port)
    client.send("c")
    bench.turn(0.01)
    client.close()
    assert not bench.lab().document()["running"]
    assert bench.done(LabStep(unit="instruction"))["reached"]
    again = Client(bench, port)
    assert again.ask("?").startswith("T")
    other = socket.create_connection((LOOPBACK, port))
    for _ in range(5):
        bench.turn(0.01)
    assert other.recv(10) == b"", "one at a time"
    other.close()
    again.close()


def test_one_guest_at_a_time_and_the_port_goes_with_its_guest(bench: Bench) -> None:
    guest = _counter(bench)
    host = bench.lab().document()["hosts"][0]["id"]
    second = bench.done(GuestCreate(host, "hello"))["guest"]
    port = _port(bench, guest)
    assert _refused(bench, bench.ask(GdbQuery(second))) == "gdb-other-guest"
    assert _refused(bench, bench.ask(GdbQuery(99))) == "no-such-guest"
    bench.done(GuestRemove(guest))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port))
    assert _port(bench, second) > 0


def test_it_can_be_switched_off() -> None:
    bench = Bench()
    bench.open()
    guest = _counter(bench)
    assert _refused(bench, bench.ask(GdbQuery(guest))) == "gdb-off"


def test_another_guest_on_the_hart_does_not_stop_at_the_breakpoint(bench: Bench) -> None:
    first = _counter(bench)
    host = bench.lab().document()["hosts"][0]["id"]
    image = bench.lab().document()["guests"][0]["image"]
    bench.done(GuestCreate(host, image))
    bench.lab().run(300)
    client = Client(bench, _port(bench, first))
    pc = client.number(PC)
    assert client.ask(f"Z0,{pc:x},4") == "OK"
    counted = client.number(6)
    for rounds in range(1, 4):
        assert client.ask("c").startswith("T05")
        assert client.number(6) in (counted + rounds, counted + rounds - 1, counted + rounds + 1)
    client.close()


def test_what_is_typed_while_gdb_runs_reaches_the_guest(bench: Bench) -> None:
    guest = bench.guest()
    client = Client(bench, _port(bench, guest))
    client.send("c")
    for _ in range(60):
        bench.turn(0.05)
    bench.done(ConsoleInput(guest, b"work syscall 3\r"))
    for _ in range(60):
        bench.turn(0.05)
    bench.done(LabPause())
    assert client.reply().startswith("T02")
    assert b"checksum" in dict(bench.lab().keyframe()["console"])[guest]
    client.close()


@pytest.mark.parametrize(
    "noise", [b"\x00" * 5000, b"$" + b"a" * 100_000, b"$m0,ffffffff#", b"+-+-\x03\x03", b"$c#63" * 50]
)
def test_a_client_that_talks_nonsense(bench: Bench, noise: bytes) -> None:
    guest = _counter(bench)
    port = _port(bench, guest)
    rude = socket.create_connection((LOOPBACK, port))
    rude.sendall(noise)
    for _ in range(10):
        bench.turn(0.01)
    rude.close()
    for _ in range(5):
        bench.turn(0.01)
    assert not any(isinstance(message, wire.Broken) for message in bench.said)
    client = Client(bench, port)
    assert client.ask("?").startswith("T")
    client.close()


def test_a_client_that_reads_nothing_is_let_go(bench: Bench) -> None:
    guest = _counter(bench)
    deaf = socket.create_connection((LOOPBACK, _port(bench, guest)))
    request = frame(b"m80200000,1f00") * 50
    for _ in range(2_000):
        try:
            deaf.settimeout(0.05)
            deaf.sendall(request)
        except OSError:
            break
        bench.turn(0.0)
        gdb_seat = bench.worker._seats["one"].gdb
        assert gdb_seat is not None
        if not gdb_seat.door.attached:
            break
    else:
        raise AssertionError("it is still there")
    deaf.close()


def test_the_real_gdb_debugs_a_guest_of_a_lab(bench: Bench) -> None:
    guest = bench.guest()
    port = _port(bench, guest)
    said: list[str] = []
    client = threading.Thread(
        target=lambda: said.append(
            gdb(
                port, "ringos",
                "break *kernel_main", "continue", "stepi", "reverse-stepi",
                'printf "at %#lx\\n", $pc', "set $t0 = 77", "p $f1 = 2.5", "p $f1", "p $t0", "monitor traps", "detach",
            )
        )
    )  # fmt: skip
    client.start()
    for _ in range(100_000):
        if not client.is_alive():
            break
        bench.turn(0.0)
        client.join(0.002)
    client.join(PATIENCE_SECONDS)
    assert "in kernel_main ()" in said[0], said[0]
    place = int(re.search(r"at (0x\w+)", said[0])[1], 16)  # type: ignore[index]
    assert bench.lab().query(RegistersQuery(guest))["pc"] == place
    assert bench.lab().query(RegistersQuery(guest))["x"][5] == 77
    assert said[0].count("2.5") >= 2
    assert "detached" in said[0]
    assert bench.lab().apply(GuestSet(guest, "x", 5, 3))["changed"]
