"""A hostile gdb client: packets with wild numbers, broken frames, and every request in any order.

    python -m tests.fuzz.gdb --count 2000 --seed 1

Whatever it says, the stub raises nothing, keeps no more of it than a packet's size, and answers a sane question
afterwards. A run that it starts is advanced a little and then interrupted, as a worker would.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from unittest.mock import patch

import msgspec

from engine import debugger
from engine.debugger import Debugger
from engine.document import GuestRow, HostRow
from engine.gdb import PACKET_BYTES, Stub, frame
from engine.hypervisor.stacks import Configuration
from engine.isa.assembler import assemble
from engine.machine.loader import LoadedImage, inspect
from tests.fuzz import asked
from tests.support.run import CONFIGURATIONS

PROGRAM = """
_start: la   t0, word
loop:   addi t1, t1, 1
        sd   t1, 0(t0)
        csrr t2, scause
        ecall
        j    loop
        .balign 8
word:   .dword 0
"""
NUMBERS = ("0", "1", "20", "21", "40", "41", "1040", "1041", "2041", "ffff", "80200000", "80200008", "ffffffff",
           "ffffffffffffffff", "fffffffffffff000", "8000000000000000", "-1", "", "zz", "10000000000000000", "0x10")  # fmt: skip
REQUESTS = (
    "?", "g", "G{n}", "p{n}", "P{n}={h}", "m{n},{n}", "M{n},{n}:{h}", "x{n},{n}", "X{n},{n}:{b}", "c", "c{n}", "s", "s{n}",
    "C05", "S05;{n}", "bs", "bc", "b", "Z0,{n},4", "Z1,{n},4", "Z2,{n},{n}", "Z3,{n},4", "Z4,{n},4", "z0,{n},4", "z2,{n},{n}",
    "Hg{n}", "Hc{n}", "T{n}", "qSupported:{b}", "qXfer:features:read:target.xml:{n},{n}", "qXfer:features:read:{b}:0,10",
    "qfThreadInfo", "qsThreadInfo", "qThreadExtraInfo,{n}", "qC", "qAttached", "qRcmd,{h}", "QStartNoAckMode", "vCont?",
    "vCont;c", "vCont;s:{n}", "vCont;s:1;c", "vCont;{b}", "vMustReplyEmpty", "!", "D", "{b}", "{h}",
)  # fmt: skip
SLICES = 3
#: A run is cut into slices this short here, so that it is interrupted soon.
SLICE_STEPS, LONG_STEPS = 300, 1_000


def _image() -> LoadedImage:
    return inspect(assemble(PROGRAM, "fuzz.s").elf(), "fuzz")


def _stub(image: LoadedImage, on: str) -> Stub:
    host = HostRow(1, "host", 0.0, 0.0, 2, 64, *msgspec.structs.astuple(Configuration.parse(on)))
    guest = GuestRow(1, "guest", 1, "fuzz", 1, 16, "")
    return Stub(Debugger.alone(host, guest, image, lambda _data: None))


def _request(chance: random.Random) -> bytes:
    """One request, its blanks filled with anything."""
    text = chance.choice(REQUESTS)
    while "{" in text:
        text = text.replace("{n}", chance.choice(NUMBERS), 1)
        text = text.replace("{h}", chance.randbytes(chance.choice((0, 1, 8, 40))).hex()[chance.randrange(2) :], 1)
        text = text.replace("{b}", chance.randbytes(chance.randrange(20)).decode("latin-1").replace("{", "("), 1)
    return text.encode("latin-1")


def _bytes(chance: random.Random) -> bytes:
    """What goes over the wire."""
    packet = frame(_request(chance))
    match chance.randrange(12):
        case 0:
            at = chance.randrange(len(packet))
            return packet[:at] + chance.randbytes(3) + packet[at:]
        case 1:
            return packet[: chance.randrange(len(packet))]
        case 2:
            return chance.randbytes(chance.choice((1, 10, 300)))
        case 3:
            return b"$" + b"m" * chance.choice((10, PACKET_BYTES, 3 * PACKET_BYTES))
        case 4:
            return b"\x03-+-"
    return packet


@patch.object(debugger, "SLICE_STEPS", SLICE_STEPS)
@patch.object(debugger, "LONG_STEPS", LONG_STEPS)
def fuzz(count: int, seed: int) -> Counter[str]:
    """How often which kind of reply came."""
    replies: Counter[str] = Counter()
    image = _image()
    stub = _stub(image, "bare-metal")
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        if number % 100 == 0 or stub.finished:
            stub = _stub(image, chance.choice(CONFIGURATIONS))
        said = _bytes(chance)
        try:
            heard = stub.feed(said)
            for _ in range(SLICES):
                heard += stub.advance() if stub.running and not stub.waits else b""
            heard += stub.interrupt()
            if stub.detached:
                stub.hang_up()
                stub.attach()
        except BaseException as error:
            error.add_note(f"input {number} of seed {seed}: {said!r}")
            raise
        for reply in re.findall(rb"\$(.?)", heard):
            replies[reply.decode("latin-1")] += 1
    stub.attach()
    assert stub.feed(frame(b"qAttached")).endswith(frame(b"1"))
    return replies


if __name__ == "__main__":
    for reply, times in fuzz(*asked("gdb", __doc__, 1000, 1)).most_common():
        print(f"{times:>8}  {reply!r}")
