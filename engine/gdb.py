"""The debugger's door: the GDB Remote Serial Protocol for one guest. Bytes in, bytes out; no sockets here.

    client ── bytes ──> Wire ── packet ──> Stub ──> Debugger        a thread is a vCPU: thread id = vCPU + 1
                         <── frame ──            <── Stop

GDB manual, appendix E "Remote Protocol" (E.1 packets, E.4 stop replies, E.6 general queries) and G "Target
Descriptions". Registers and CSRs are numbered from the tables of engine.isa, as gdb and OpenOCD number them:
0 to 32 are x0 to x31 and pc, 33 + n is f n, 65 + n is CSR n, 4161 is the privilege.

Invariants
- Whatever a client sends, nothing raises: an unknown packet gets the empty reply, a wrong one an error reply.
- What is kept of a client is bounded by PACKET_BYTES.
- All-stop: while the guest runs, the one thing a client can say with effect on it is Ctrl-C.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from engine.bits import MASK64
from engine.debugger import Debugger, Running, Stop
from engine.isa.csrs import CSRS
from engine.isa.table import FLOAT_REGISTERS, REGISTERS
from engine.trace.export import to_object

PACKET_BYTES = 0x4000
#: Bytes of memory that one packet carries as hexadecimal digits, with room for its frame.
MEMORY_BYTES = (PACKET_BYTES - 32) // 2
PC, FIRST_FLOAT, FIRST_CSR, PRIVILEGE = 32, 33, 65, 65 + 4096
SHOWN_TRAPS = 10

INTERRUPT = 0x03
SIGINT, SIGTRAP, SIGABRT = 2, 5, 6
#: Error numbers are the client's to show only: 1 wrong packet, 0x14 (EFAULT) nothing is mapped, 0x1e (EROFS)
#: the register cannot be written, 0x1c (ENOSPC) too many stops.
MALFORMED, FAULT, READ_ONLY, TOO_MANY = "E01", "E14", "E1e", "E1c"

_HEX = re.compile(r"[0-9a-fA-F]{1,16}")


class _Refused(Exception):  # noqa: N818 (what the client gets is an error reply)
    """A packet that cannot be served; the text is its reply."""


# -- packets ---------------------------------------------------------------------------------------
def frame(body: bytes) -> bytes:
    """A packet: $body#checksum, with what would be misread escaped (E.1)."""
    escaped = bytearray()
    for byte in body:
        if byte in b"#$}*":
            escaped += bytes((0x7D, byte ^ 0x20))
        else:
            escaped.append(byte)
    return b"$%s#%02x" % (bytes(escaped), sum(escaped) & 0xFF)


class Wire:
    """Takes packets out of a stream. `feed` yields their unescaped bodies, b"\\x03" for Ctrl-C; `reply`
    collects what goes back, acknowledgements included. A packet without its frame is passed over."""

    def __init__(self) -> None:
        self.acknowledging = True
        self._buffer = bytearray()
        self._latest = b""  # unacknowledged
        self._out = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while self._buffer:
            first = self._buffer[0]
            if first != ord("$"):
                del self._buffer[0]
                if first == INTERRUPT:
                    yield bytes([INTERRUPT])
                elif first == ord("-"):
                    self._out += self._latest
                    self._latest = b""
                elif first == ord("+"):
                    self._latest = b""
                continue
            end = self._buffer.find(b"#", 0, PACKET_BYTES)
            if end < 0 and len(self._buffer) >= PACKET_BYTES:
                self._buffer.clear()
                self._acknowledge(b"-")
            if end < 0 or len(self._buffer) < end + 3:
                return
            body, checksum = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
            del self._buffer[: end + 3]
            good = not self.acknowledging or checksum.lower() == b"%02x" % (sum(body) & 0xFF)
            self._acknowledge(b"+" if good else b"-")
            if good:
                yield _unescaped(body)

    def _acknowledge(self, sign: bytes) -> None:
        if self.acknowledging:
            self._out += sign

    def reply(self, body: bytes) -> None:
        packet = frame(body)
        if self.acknowledging:
            self._latest = packet
        self._out += packet

    def acknowledge_no_more(self) -> None:
        """The client trusts its connection (E.11, "Packet Acknowledgment")."""
        self.acknowledging, self._latest = False, b""

    def take(self) -> bytes:
        """What goes to the client now."""
        out = bytes(self._out)
        self._out.clear()
        return out


def _unescaped(body: bytes) -> bytes:
    if b"}" not in body:
        return body
    result, escaped = bytearray(), False
    for byte in body:
        if escaped:
            result.append(byte ^ 0x20)
            escaped = False
        elif byte == 0x7D:
            escaped = True
        else:
            result.append(byte)
    return bytes(result)


def _number(text: str) -> int:
    if not _HEX.fullmatch(text):
        raise _Refused(MALFORMED)
    return int(text, 16)


def _numbers(text: str, separator: str, count: int) -> list[int]:
    parts = text.split(separator)
    if len(parts) != count:
        raise _Refused(MALFORMED)
    return [_number(part) for part in parts]


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _Refused(MALFORMED) from None


def _little_endian(value: int) -> str:
    return (value & MASK64).to_bytes(8, "little").hex()


# -- target description ----------------------------------------------------------------------------
def target_description() -> str:
    """The registers, for gdb (appendix G, "RISC-V Features")."""

    def register(name: str, number: int, more: str = "") -> str:
        return f'<reg name="{name}" bitsize="64" regnum="{number}"{more}/>'

    csrs = ' group="csr" save-restore="no"'
    return "\n".join(
        (
            '<?xml version="1.0"?>',
            '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
            '<target version="1.0">',
            "<architecture>riscv:rv64</architecture>",
            '<feature name="org.gnu.gdb.riscv.cpu">',
            *(register(name, number) for number, name in enumerate(REGISTERS)),
            register("pc", PC, ' type="code_ptr"'),
            "</feature>",
            '<feature name="org.gnu.gdb.riscv.fpu">',
            *(
                register(name, FIRST_FLOAT + number, ' type="ieee_double" group="float"')
                for number, name in enumerate(FLOAT_REGISTERS)
            ),
            "</feature>",
            '<feature name="org.gnu.gdb.riscv.csr">',
            *(register(row.name, FIRST_CSR + row.number, csrs) for row in CSRS.values()),
            "</feature>",
            '<feature name="org.gnu.gdb.riscv.virtual">',
            register("priv", PRIVILEGE, ' save-restore="no"'),
            "</feature>",
            "</target>\n",
        )
    )


class Stub:
    """What one client talks to. `running`: call `advance` until it is not, unless the guest `waits`. `finished`: the
    guest has ended or was killed, and the client knows. `runs_on`: a guest that a client lets go of runs on here."""

    def __init__(self, debugger: Debugger, runs_on: bool = True) -> None:
        self.debugger = debugger
        self.finished = False
        self.killed = False
        self.detached = False
        self._runs_on = runs_on
        self._wire = Wire()
        self._run: Running | None = None
        self._forward = True
        self._thread = 0  # what registers and memory are asked of: a vCPU
        self._stop = Stop(0, "step")
        self._description = target_description()

    @property
    def running(self) -> bool:
        return self._run is not None

    @property
    def waits(self) -> bool:
        """Is there nothing to run on until the guest gets input?"""
        return self._forward and self.debugger.waits

    # -- one client after the other ------------------------------------------------------------------
    def attach(self) -> None:
        """A new client: the guest stands still, as the protocol expects."""
        self._wire, self._run, self._thread = Wire(), None, 0
        self.detached = self.finished = self.killed = False

    def hang_up(self) -> None:
        """The client is gone. Unless it said goodbye the guest stands still until the next one."""
        if not self.detached:
            self._run = None

    def feed(self, data: bytes) -> bytes:
        """Bytes from the client; returns those for it."""
        for body in self._wire.feed(data):
            if self.finished or self.detached:
                break
            if body == bytes([INTERRUPT]):
                self._interrupt()
                continue
            try:
                reply = self._serve(body)
            except _Refused as refusal:
                reply = str(refusal)
            if reply is not None:
                self._wire.reply(reply.encode("latin-1"))
            if body == b"QStartNoAckMode":
                self._wire.acknowledge_no_more()
        return self._wire.take()

    def advance(self) -> bytes:
        """Run on a little; returns bytes for the client."""
        assert self._run is not None
        stop = next(self._run, None)
        if stop is not None:
            self._stopped(stop)
        return self._wire.take()

    def interrupt(self) -> bytes:
        """Stop the guest as the client's Ctrl-C does; returns bytes for the client."""
        self._interrupt()
        return self._wire.take()

    def _interrupt(self) -> None:
        if self._run is not None:
            self._run = None
            self._stop = Stop(self._thread, "interrupt")
            self._wire.reply(self._stop_reply().encode())

    def _stopped(self, stop: Stop) -> None:
        self._run, self._stop, self._thread = None, stop, stop.vcpu
        failure = self.debugger.guest.failure
        if stop.reason == "exited" or (stop.reason == "failed" and self.detached):
            self.finished = True
        elif stop.reason == "failed" and failure is not None:
            self._say(f"The guest died: {failure.message}\n")
        if not self.detached:
            self._wire.reply(self._stop_reply().encode())

    def _say(self, text: str) -> None:
        self._wire.reply(b"O" + text.encode().hex().encode())

    def _stop_reply(self) -> str:
        reason, thread = self._stop.reason, f"thread:{self._stop.vcpu + 1:x};"
        if reason == "exited":
            return f"W{min(self.debugger.guest.exit_status or 0, 255):02x}"
        if reason == "failed":
            return f"T{SIGABRT:02x}{thread}"
        if reason == "interrupt":
            return f"T{SIGINT:02x}{thread}"
        more = {"begin": "replaylog:begin;", "watchpoint": f"watch:{self._stop.address:x};"}.get(reason, "")
        return f"T{SIGTRAP:02x}{thread}{more}"

    # -- requests ------------------------------------------------------------------------------------
    def _serve(self, body: bytes) -> str | None:
        """The reply; None: it comes when the guest stops."""
        text = body.decode("latin-1")
        for name, handler in _NAMED:
            if text.startswith(name):
                return handler(self, text[len(name) :])
        handler = _LETTERS.get(text[:1], Stub._unknown)
        return handler(self, text[1:])

    def _unknown(self, _text: str) -> str:
        return ""

    def _why(self, _text: str) -> str:
        return self._stop_reply()

    # registers
    def _read_all(self, _text: str) -> str:
        hart = self.debugger.hart(self._thread)
        return "".join(_little_endian(value) for value in (*hart.x, hart.pc))

    def _write_all(self, text: str) -> str:
        data = _bytes(text)
        if len(data) != 8 * (PC + 1):
            return MALFORMED
        for number in range(PC + 1):
            value = int.from_bytes(data[8 * number : 8 * number + 8], "little")
            self.debugger.set_register(self._thread, number, value)
        return "OK"

    def _read_one(self, text: str) -> str:
        number = _number(text)
        hart = self.debugger.hart(self._thread)
        if number <= PC:
            return _little_endian(hart.pc if number == PC else hart.x[number])
        if number < FIRST_CSR:
            return _little_endian(hart.f[number - FIRST_FLOAT])
        if number == PRIVILEGE:
            return _little_endian(hart.privilege)
        row = CSRS.get(number - FIRST_CSR)
        return MALFORMED if row is None else _little_endian(hart.csr_value(row))

    def _write_one(self, text: str) -> str:
        name, _, digits = text.partition("=")
        number, data = _number(name), _bytes(digits)
        if len(data) != 8:
            return MALFORMED
        value = int.from_bytes(data, "little")
        if number <= PC:
            self.debugger.set_register(self._thread, number, value)
            return "OK"
        if number < FIRST_CSR:
            self.debugger.set_float(self._thread, number - FIRST_FLOAT, value)
            return "OK"
        if number == PRIVILEGE:
            return "OK" if self.debugger.set_privilege(self._thread, value) else READ_ONLY
        row = CSRS.get(number - FIRST_CSR)
        if row is None:
            return MALFORMED
        return "OK" if self.debugger.set_csr(self._thread, row, value) else READ_ONLY

    # memory
    def _read_memory(self, text: str) -> str:
        address, length = _numbers(text, ",", 2)
        data = self.debugger.read(self._thread, address, min(length, MEMORY_BYTES))
        return FAULT if length and not data else data.hex()

    def _read_binary(self, text: str) -> str:
        address, length = _numbers(text, ",", 2)
        # Escaping may double it.
        data = self.debugger.read(self._thread, address, min(length, MEMORY_BYTES))
        return FAULT if length and not data else "b" + data.decode("latin-1")

    def _write_memory(self, text: str) -> str:
        where, _, digits = text.partition(":")
        return self._store(where, _bytes(digits))

    def _write_binary(self, text: str) -> str:
        where, _, data = text.partition(":")
        return self._store(where, data.encode("latin-1"))

    def _store(self, where: str, data: bytes) -> str:
        address, length = _numbers(where, ",", 2)
        if length != len(data) or address + length > MASK64 + 1:
            return MALFORMED
        return "OK" if self.debugger.write(self._thread, address, data) else FAULT

    # stops
    def _insert(self, text: str) -> str:
        kind, address, length = self._stop_point(text)
        if kind in _BREAKPOINTS:
            return "OK" if self.debugger.stop_at(address) else TOO_MANY
        if kind == _WRITE_WATCH:
            return "OK" if self.debugger.watch(self._thread, address, length) else FAULT
        return ""

    def _remove(self, text: str) -> str:
        kind, address, length = self._stop_point(text)
        if kind in _BREAKPOINTS:
            self.debugger.breakpoints.discard(address)
        elif kind == _WRITE_WATCH:
            self.debugger.watchpoints.pop((address, length), None)
        else:
            return ""
        return "OK"

    @staticmethod
    def _stop_point(text: str) -> tuple[str, int, int]:
        kind, _, rest = text.partition(",")
        address, length = _numbers(rest.partition(";")[0], ",", 2)
        return kind, address, length

    # running
    def _continue(self, text: str) -> str | None:
        return self._go(text, self.debugger.go)

    def _step(self, text: str) -> str | None:
        return self._go(text, lambda: self.debugger.step(self._thread))

    def _go(self, address: str, run: Callable[[], Running]) -> str | None:
        """`c` and `s`, with the address to go on at if one is given."""
        guest = self.debugger.guest
        if guest.ended and guest.failure is not None:
            self.finished = True
            return f"X{SIGABRT:02x}"
        if address:
            self.debugger.set_register(self._thread, PC, _number(address))
        self._run, self._forward = run(), True
        return None

    def _with_signal(self, text: str) -> str:
        return text.partition(";")[2]

    def _continue_with_signal(self, text: str) -> str | None:
        """There are no signals on a machine; the address still counts."""
        return self._continue(self._with_signal(text))

    def _step_with_signal(self, text: str) -> str | None:
        return self._step(self._with_signal(text))

    def _backward(self, text: str) -> str | None:
        if text == "s":
            self._run, self._forward = self.debugger.step_back(self._thread), False
        elif text == "c":
            self._run, self._forward = self.debugger.go_back(), False
        else:
            return ""
        return None

    def _resume(self, text: str) -> str | None:
        """vCont: one machine has one time, so a thread that steps decides, and the others go on beside it."""
        actions = [action.partition(":") for action in text.split(";")]
        if any(action[:1] not in ("c", "C", "s", "S") for action, _, _ in actions):
            return MALFORMED
        for action, _, thread in actions:
            if action[0] in "sS":
                self._thread = self._vcpu(thread) if thread else self._thread
                return self._step("")
        return self._continue("")

    # threads
    def _vcpu(self, thread: str) -> int:
        """-1 (all) and 0 (any) mean the one that is selected."""
        if thread in ("-1", "0"):
            return self._thread
        number = _number(thread) - 1
        if not 0 <= number < self.debugger.guest.vcpu_count:
            raise _Refused(MALFORMED)
        return number

    def _select(self, text: str) -> str:
        if text[:1] not in ("g", "c", "m"):
            return ""
        self._thread = self._vcpu(text[1:])
        return "OK"

    def _alive(self, text: str) -> str:
        self._vcpu(text)
        return "OK"

    def _threads(self, _text: str) -> str:
        return "m" + ",".join(f"{vcpu + 1:x}" for vcpu in range(self.debugger.guest.vcpu_count))

    def _thread_info(self, text: str) -> str:
        guest = self.debugger.guest
        hart = guest.hart(self._vcpu(text))
        state = "stopped" if hart.stopped else "waits" if hart.waiting else "runs"
        level = guest.level_of(hart).name.lower().replace("_", " ")
        return f"vCPU {hart.number} {state}, {level}".encode().hex()

    # the session
    def _supported(self, _text: str) -> str:
        return (
            f"PacketSize={PACKET_BYTES:x};QStartNoAckMode+;vContSupported+;ReverseStep+;ReverseContinue+;"
            "qXfer:features:read+"
        )

    def _features(self, text: str) -> str:
        name, _, where = text.partition(":")
        if name != "target.xml":
            return "E00"
        offset, length = _numbers(where, ",", 2)
        part = self._description[offset : offset + min(length, MEMORY_BYTES)]
        return ("l" if offset + len(part) >= len(self._description) else "m") + part

    def _detach(self, _text: str) -> str:
        self.debugger.breakpoints.clear()
        self.debugger.watchpoints.clear()
        self.detached, self._run, self._forward = True, self.debugger.go() if self._runs_on else None, True
        return "OK"

    def _kill(self, _text: str) -> str | None:
        self.finished = self.killed = True
        return None

    def _kill_process(self, _text: str) -> str:
        self.finished = self.killed = True
        return "OK"

    def _monitor(self, text: str) -> str:
        command = _bytes(text).decode("utf-8", "replace").strip()
        if command == "traps":
            said = "".join(self._latest_traps()) or "The guest has not trapped yet.\n"
        elif command == "help":
            said = _MONITOR_HELP
        else:
            said = f"There is no command {command[:40]!r}.\n{_MONITOR_HELP}"
        return said.encode().hex()

    def _latest_traps(self) -> Iterator[str]:
        for record in self.debugger.world.trace.latest(SHOWN_TRAPS):
            trap = to_object(record.tobytes())
            path = " > ".join(trap["path"])
            yield (
                f"{trap['sequence']:>8}  vCPU {trap['vcpu']}  {trap['kind']}: {trap['cause']} at {trap['pc']}"
                f", value {trap['value']}; {trap['action']}, {trap['disposition']}; {path}\n"
            )


_BREAKPOINTS = ("0", "1")
_WRITE_WATCH = "2"
_MONITOR_HELP = (
    f"monitor traps   the guest's latest {SHOWN_TRAPS} traps, as Ringside recorded them\n"
    "monitor help    this text\n"
)


def _constant(reply: str) -> Callable[[Stub, str], str | None]:
    return lambda _stub, _text: reply


_Handler = Callable[[Stub, str], str | None]

#: Packets with a name; the first whose name the packet begins with serves it.
_NAMED: tuple[tuple[str, _Handler], ...] = (
    ("qSupported", Stub._supported),
    ("qXfer:features:read:", Stub._features),
    ("qfThreadInfo", Stub._threads),
    ("qsThreadInfo", _constant("l")),
    ("qThreadExtraInfo,", Stub._thread_info),
    ("qC", lambda stub, text: "" if text else f"QC{stub._thread + 1:x}"),
    ("qAttached", _constant("1")),
    ("qRcmd,", Stub._monitor),
    ("QStartNoAckMode", _constant("OK")),
    ("vCont?", _constant("vCont;c;C;s;S")),
    ("vCont;", Stub._resume),
    ("vKill", Stub._kill_process),
)
_LETTERS: dict[str, _Handler] = {
    "?": Stub._why,
    "g": Stub._read_all,
    "G": Stub._write_all,
    "p": Stub._read_one,
    "P": Stub._write_one,
    "m": Stub._read_memory,
    "M": Stub._write_memory,
    "x": Stub._read_binary,
    "X": Stub._write_binary,
    "Z": Stub._insert,
    "z": Stub._remove,
    "c": Stub._continue,
    "C": Stub._continue_with_signal,
    "s": Stub._step,
    "S": Stub._step_with_signal,
    "b": Stub._backward,
    "H": Stub._select,
    "T": Stub._alive,
    "D": Stub._detach,
    "k": Stub._kill,
}
