"""ringos on a network: it answers whoever asks rightly, and nobody else. The other side is QEMU's own network (libslirp),
another ringos, or the test, which has its packets from the RFCs."""

from __future__ import annotations

import random
import re
import socket
import struct
from threading import Thread

import pytest

from engine.commands import LabSeek
from engine.devices.virtio.net import FRAME_BYTES, mac_address
from engine.guests import load_image
from engine.guests.build import IMAGES
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.lab import Lab
from engine.machine.loader import inspect
from engine.trace.rings import Trace
from tests.support.labs import console, guests_of, lab_of, ringos_for
from tests.support.qemu import run_qemu

PROMPT = "ringos$ "
MODERN = ("-global", "virtio-mmio.force-legacy=false")
WAYS = ("bare-metal", "trap-and-emulate", "binary-translation", "paravirtual", "hardware-assist")
WORK = "work packet 30"
SAYS = "work packet 30: 30 packets there and back, checksum 0x"


# -- a station of the test's own -------------------------------------------------------------------------
OTHER, OTHER_CARD = bytes((10, 0, 0, 9)), b"\x02other"
RINGOS, RINGOS_CARD = bytes((10, 0, 0, 1)), mac_address(1)
ALL, ALL_CARDS = bytes((10, 0, 255, 255)), b"\xff" * 6


def internet_sum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data)) if len(data) % 2 == 0 else internet_sum(data + b"\0") ^ 0xFFFF
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def arp(operation: int, target_card: bytes = bytes(6), target: bytes = RINGOS) -> bytes:
    """RFC 826, of the test's station."""
    to = ALL_CARDS if operation == 1 else target_card
    start = struct.pack(">HHHBBH", 0x806, 1, 0x800, 6, 4, operation)
    return to + OTHER_CARD + start + OTHER_CARD + OTHER + target_card + target


def echo(kind: int, rest: bytes, to_card: bytes = RINGOS_CARD, to: bytes = RINGOS, **fields: int) -> bytes:
    """RFC 791 and 792: `rest` is the number and the data. `fields`: what is not as it should be."""
    message = struct.pack(">BBH", kind, 0, 0) + rest
    message = message[:2] + (internet_sum(message) ^ fields.get("damage", 0)).to_bytes(2, "big") + message[4:]
    header = struct.pack(
        ">BBHHHBBH", fields.get("version", 0x45), 0, fields.get("bytes", 20 + len(message)), 0, fields.get("fragment", 0), 9,
        fields.get("protocol", 1), 0,
    )  # fmt: skip
    header += OTHER + to
    header = header[:10] + (internet_sum(header) ^ fields.get("header_damage", 0)).to_bytes(2, "big") + header[12:]
    return to_card + OTHER_CARD + struct.pack(">H", 0x800) + header + message


def answer(frame: bytes) -> list[bytes]:
    """What the test's station says to a frame."""
    card, kind = frame[6:12], frame[12:14]
    if kind == b"\x08\x06" and frame[38:42] == OTHER:
        return [arp(2, card, frame[28:32])]
    if kind == b"\x08\x00" and frame[34] == 8:
        assert internet_sum(frame[14:34]) == internet_sum(frame[34:]) == 0
        return [echo(0, frame[38:], card, frame[26:30])]
    return []


# -- on QEMU -------------------------------------------------------------------------------------------
def test_qemus_network_answers_and_who_is_not_there_does_not() -> None:
    card = ("-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net,mac=02:52:53:00:02:0f")
    right = ("", "10.0.2.2 20", "10.0.2.15 1", "10.0.2.99 1")
    wrong = ("10.0.2", "10.0.2.256", "10.0.2.2 0", "0.0.0.0")
    lines = [f"ping {arguments}" for arguments in (*right, *wrong)]
    last = [(PROMPT, "demo & ping 10.0.2.98 99\r"), ("demo: round 2,", "\x03"), ("[exit 159]\r\n" + PROMPT, "poweroff\r")]
    result = run_qemu(
        IMAGES / "ringos.elf", [*((PROMPT, f"{line}\r") for line in lines), *last], options=[*MODERN, *card]
    )
    assert result.status == 0
    assert "this is 10.0.2.15\n" in result.output
    assert re.search(r"10\.0\.2\.2: 20 of 20 packets came back, the fastest after \d+ us\n", result.output)
    assert "10.0.2.15: 1 of 1 packets" in result.output
    assert result.output.count("usage: ping [STATION [N]]") == 3
    assert "0.0.0.0: invalid argument\n" in result.output
    assert "10.0.2.99: no answer\n[exit 1]\n" in result.output


def test_the_packets_on_qemu_are_the_packets_here() -> None:
    """The workload against the test's station, over a socket; and under every technique against another ringos."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        asked: list[bytes] = []

        def station() -> None:
            while frame := wire.recv(2000):
                asked.append(frame)
                for back in answer(frame):
                    wire.sendto(back, ("127.0.0.1", port))

        thread = Thread(target=station)
        thread.start()
        ends = f"udp=127.0.0.1:{wire.getsockname()[1]},localaddr=127.0.0.1:{port}"
        card = ("-netdev", f"socket,id=net,{ends}", "-device", "virtio-net-device,netdev=net,mac=02:52:53:00:00:01")
        result = run_qemu(
            IMAGES / "ringos.elf", arguments=f"run={WORK}; ping 10.0.0.9 5; poweroff 5", options=[*MODERN, *card]
        )
        wire.sendto(b"", wire.getsockname())
        thread.join(10)
    assert result.status == 5
    assert "10.0.0.9: 5 of 5 packets" in result.output
    assert [frame[12:14] for frame in asked[:3]] == [b"\x08\0", b"\x08\x06", b"\x08\0"], "all, whose card, that one"
    [line] = re.findall(rf"^{re.escape(SAYS)}.*", result.output, re.MULTILINE)
    for way in WAYS:
        assert line in said(lab_of([f"run={WORK}"], [""], configuration=way))


def test_without_a_card_or_anybody_else_it_says_so() -> None:
    lines = ("ping", "work packet 3", "echo still here")
    result = run_qemu(IMAGES / "ringos.elf", [(PROMPT, f"{line}\r") for line in (*lines, "poweroff")])
    assert "ping: no network card\n[exit 1]\n" in result.output
    assert "work: a packet to another ringos: no network card\n[exit 1]\n" in result.output
    assert result.status == 0
    for way in WAYS:
        alone = said(lab_of([f"run={WORK}; ping 10.0.0.9 1; echo still here"], configuration=way))
        assert "work: a packet to another ringos: no answer\n[exit 1]\n10.0.0.9: no answer\n[exit 1]\nstill here\n" in alone


# -- in a lab ------------------------------------------------------------------------------------------
def said(lab: Lab) -> str:
    """What its first guest has printed when nothing happens any more."""
    for _ in range(40):
        if not lab.run(400_000).steps:
            break
    return console(lab, guests_of(lab)[0]).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("way", WAYS[1:])
def test_guests_of_one_host_talk_and_it_does_not_matter_where_somebody_looks(way: str) -> None:
    def made() -> Lab:
        return lab_of(["run=ping 10.0.0.3 3; work packet 10", "run=work packet 5"], configuration=way)

    lab = made()
    text = said(lab)
    assert "work packet 10: 10 packets there and back" in text
    assert "of 3 packets came back" in text
    dice, again = random.Random(way), made()
    while again.run(dice.choice((1, 700, 9_000, 60_000))).steps:
        if dice.random() < 0.2:
            again = Lab.load(again.save())
    assert again.trace_hash() == lab.trace_hash()
    middle = lab.position // 2
    again.apply(LabSeek(middle))
    while again.run(100_000).steps:
        pass
    assert again.trace_hash() == lab.trace_hash()


# -- frames that nobody should send --------------------------------------------------------------------
class Alone:
    """A ringos whose wire is in the test's hands, at its prompt."""

    def __init__(self, way: str) -> None:
        self.sent: list[bytes] = []
        self.shown = bytearray()
        self.host = Host(
            1, 1, 64, Configuration.parse(way), Trace(), lambda _guest, data: self.shown.extend(data),
            lambda _guest, frame: self.sent.append(frame),
        )  # fmt: skip
        name = ringos_for(way)
        self.host.add_guest(1, inspect(load_image(name), name), 1, 16, "")
        self.settle()
        assert self.shown.endswith(b"ringos$ ")

    def settle(self) -> None:
        while self.host.run(100_000):
            pass

    def hears(self, *frames: bytes) -> list[bytes]:
        """What it says to frames that arrive together."""
        self.sent.clear()
        self.host.guests[1].arrive(frames)
        self.settle()
        return list(self.sent)


@pytest.fixture(scope="module", params=["bare-metal", "trap-and-emulate", "paravirtual"])
def alone(request: pytest.FixtureRequest) -> Alone:
    return Alone(request.param)


def answers_rightly(alone: Alone) -> None:
    data = bytes(range(40))
    assert alone.hears(arp(1)) == [
        OTHER_CARD + RINGOS_CARD + struct.pack(">HHHBBH", 0x806, 1, 0x800, 6, 4, 2) + RINGOS_CARD + RINGOS + OTHER_CARD + OTHER
    ]
    for to in (RINGOS, ALL):
        [back] = alone.hears(echo(8, b"abcd" + data, to=to))
        assert back[:14] == OTHER_CARD + RINGOS_CARD + b"\x08\0"
        assert (back[14], back[23], back[26:34]) == (0x45, 1, RINGOS + OTHER)
        assert int.from_bytes(back[16:18], "big") == len(back) - 14
        assert internet_sum(back[14:34]) == internet_sum(back[34:]) == 0
        assert (back[34:36], back[38:]) == (b"\0\0", b"abcd" + data)


def test_it_answers_requests_of_every_length(alone: Alone) -> None:
    answers_rightly(alone)
    for length in (0, 1, 7, 57, 1000, FRAME_BYTES - 42):
        [back] = alone.hears(echo(8, bytes(4) + b"x" * length))
        assert len(back) == 42 + length
    assert len(alone.hears(*[echo(8, bytes(4))] * 20)) == 8, "more than it has buffers for are lost"
    answers_rightly(alone)


@pytest.mark.parametrize(
    "frame",
    [
        echo(8, bytes(4), to=bytes((10, 0, 0, 2))),
        echo(8, bytes(4), damage=1),
        echo(8, bytes(4), header_damage=1),
        echo(8, bytes(4), version=0x46),
        echo(8, bytes(4), version=0x65),
        echo(8, bytes(4), fragment=0x2000),
        echo(8, bytes(4), fragment=1),
        echo(8, bytes(4), protocol=17),
        echo(8, bytes(4), bytes=27),
        echo(8, bytes(4), bytes=29),
        echo(8, bytes(4), bytes=0xFFFF),
        echo(8, bytes(4), bytes=0),
        echo(8, bytes(4))[:-1],
        echo(0, bytes(4) + b"nobody asked"),
        echo(0, bytes(4)),
        arp(1)[:-1],
        arp(1, target=OTHER),
        arp(2),
        arp(3),
        arp(1).replace(b"\x06\x04", b"\xff\xff"),
        RINGOS_CARD + OTHER_CARD + b"\x08\x00",
        RINGOS_CARD + OTHER_CARD + b"\x08\x06" + bytes(100),
        RINGOS_CARD + OTHER_CARD + b"\x86\xdd" + bytes(100),
    ],
)
def test_it_is_silent_on_what_is_not_for_it_or_not_what_it_says(alone: Alone, frame: bytes) -> None:
    shown = bytes(alone.shown)
    assert alone.hears(frame) == []
    answers_rightly(alone)
    assert alone.shown == shown


def test_frames_of_a_hostile_neighbour_do_it_no_harm(alone: Alone) -> None:
    dice, shown = random.Random(7), bytes(alone.shown)
    good = [arp(1), arp(2), echo(8, bytes(60)), echo(0, bytes(60))]
    for _ in range(60):
        frames = []
        for _ in range(8):
            frame = bytearray(dice.choice(good) if dice.random() < 0.8 else dice.randbytes(dice.randrange(14, FRAME_BYTES)))
            for _ in range(dice.randrange(6)):
                frame[dice.randrange(len(frame))] = dice.randrange(256)
            frames.append(bytes(frame[: dice.randrange(14, len(frame) + 1)] if dice.random() < 0.3 else frame))
        for back in alone.hears(*frames):
            assert back[6:12] == RINGOS_CARD
            assert 42 <= len(back) <= FRAME_BYTES
    answers_rightly(alone)
    assert alone.shown == shown
    assert not alone.host.guests[1].ended
