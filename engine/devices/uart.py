"""16550A UART: the console. A guest writes bytes to the host and reads what the host has queued for it.

    offset   DLAB = 0, read            DLAB = 0, write           DLAB = 1
    0        RBR received byte         THR byte to send          DLL divisor, low
    1        IER interrupt enables     IER                       DLM divisor, high
    2        IIR interrupt identity    FCR FIFO control
    3 .. 7   LCR line control, MCR modem control, LSR line status, MSR modem status, SCR scratch

National Semiconductor PC16550D, chapter 8. As in QEMU, an access of any width reaches the one register at its
offset, and the window ends after the eighth. A byte leaves at once, so the transmitter is always empty again
when the guest looks.

What the host sends waits in a bounded queue behind the receive FIFO and moves up as the guest reads: nothing
overruns. The character timeout (a FIFO below its trigger level that rests for four character times) counts as
over at once, because a UART without a clock keeps the trace the same however fast the lab runs.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.devices import PLIC_LABEL, Node, State, check_access, registers

QUEUE_LIMIT = 64 * 1024
FIFO_DEPTH = 16
CLOCK_HZ = 3686400
TRIGGER_LEVELS = (1, 4, 8, 14)
REGISTERS_END = 8
RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)
DLAB = 0x80


class Enable:
    """IER."""

    RECEIVED = 1
    TRANSMITTER_EMPTY = 2
    LINE_STATUS = 4
    MODEM_STATUS = 8


class Identity:
    """IIR bits 3..0: the most urgent pending interrupt."""

    NONE = 0x1
    MODEM_STATUS = 0x0
    TRANSMITTER_EMPTY = 0x2
    RECEIVED = 0x4
    LINE_STATUS = 0x6
    TIMEOUT = 0xC


class Fifo:
    """FCR; bits 7..6 select the receive trigger level. IIR shows 0xc0 while the FIFOs are enabled."""

    ENABLE = 0x01
    CLEAR_RECEIVE = 0x02
    CLEAR_TRANSMIT = 0x04
    KEPT = 0xC9


FIFO_ENABLED = 0xC0


class Line:
    """LSR."""

    DATA_READY = 0x01
    OVERRUN = 0x02
    BREAK = 0x10
    ERRORS = 0x1E
    TRANSMITTER_EMPTY = 0x60


class Modem:
    """MCR."""

    DTR = 0x01
    RTS = 0x02
    OUT2 = 0x08
    OUTPUTS = 0x0C
    LOOPBACK = 0x10
    WRITABLE = 0x1F


#: MSR with a peer that is there: DCD, DSR and CTS.
PEER_READY = 0xB0


class Uart16550:
    """`output(bytes)` is called with every byte sent, `raise_irq(level)` whenever the interrupt line changes.
    """

    def __init__(
        self,
        raise_irq: Callable[[bool], None],
        output: Callable[[bytes], None],
        base: int = 0x10000000,
        irq: int = 10,
    ) -> None:
        self.name = "uart"
        self.base = base
        self.size = 0x100
        self.irq = irq
        self._raise_irq = raise_irq
        self._output = output
        self._divisor = 0xC
        self._ier = 0
        self._fcr = 0
        self._lcr = 0
        self._mcr = Modem.OUT2
        self._overrun = False
        self._scr = 0
        self._transmitter_pending = False
        self._received = bytearray()
        self._holding = 0
        self._queue = bytearray()
        self._level = False

    def receive(self, data: bytes) -> int:
        """Queue bytes from the host; returns how many were taken (all, unless 64 KiB already wait)."""
        taken = data[: QUEUE_LIMIT - len(self._queue)]
        self._queue += taken
        self._refill()
        self._update()
        return len(taken)

    @property
    def listening(self) -> bool:
        """Does the guest want to be interrupted when a byte arrives?"""
        return bool(self._ier & Enable.RECEIVED)

    def take(self, length: int) -> bytes:
        """Up to `length` waiting bytes, out of the guest's sight: firmware reads its console so."""
        waiting = self._received + self._queue
        self._received.clear()
        self._queue = waiting[length:]
        self._refill()
        self._update()
        return bytes(waiting[:length])

    @property
    def waiting(self) -> int:
        """Bytes the guest has not read yet."""
        return len(self._queue) + len(self._received)

    def level(self) -> bool:
        """Is the interrupt line high?"""
        return self._level

    def _depth(self) -> int:
        return FIFO_DEPTH if self._fcr & Fifo.ENABLE else 1

    def _refill(self) -> None:
        """Move up from the host's queue. In loopback the receiver hears only its own transmitter."""
        room = self._depth() - len(self._received)
        if room > 0 and self._queue and not self._mcr & Modem.LOOPBACK:
            self._received += self._queue[:room]
            self._hold()
            del self._queue[:room]

    def _hold(self) -> None:
        """Without FIFOs the receiver buffer register keeps its byte after it was read."""
        if not self._fcr & Fifo.ENABLE:
            self._holding = self._received[0]

    def _line_status(self) -> int:
        status = Line.TRANSMITTER_EMPTY
        if self._received:
            status |= Line.DATA_READY
        if self._overrun:
            status |= Line.OVERRUN
        return status

    def _identity(self) -> int:
        if self._ier & Enable.LINE_STATUS and self._line_status() & Line.ERRORS:
            return Identity.LINE_STATUS
        if self._ier & Enable.RECEIVED and self._received:
            if self._fcr & Fifo.ENABLE and len(self._received) < TRIGGER_LEVELS[self._fcr >> 6]:
                return Identity.TIMEOUT
            return Identity.RECEIVED
        if self._ier & Enable.TRANSMITTER_EMPTY and self._transmitter_pending:
            return Identity.TRANSMITTER_EMPTY
        return Identity.NONE

    def _update(self) -> None:
        level = self._identity() != Identity.NONE
        if level != self._level:
            self._level = level
            self._raise_irq(level)

    def read(self, offset: int, size: int) -> int:
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)
        if self._lcr & DLAB and offset <= IER_DLM:
            return self._divisor >> (8 * offset) & 0xFF
        match offset:
            case 0:
                value = self._received.pop(0) if self._received else 0
                if not self._fcr & Fifo.ENABLE:
                    value = self._holding
                self._refill()
                self._update()
                return value
            case 1:
                return self._ier
            case 2:
                identity = self._identity()
                if identity == Identity.TRANSMITTER_EMPTY:
                    self._transmitter_pending = False
                    self._update()
                return identity | (FIFO_ENABLED if self._fcr & Fifo.ENABLE else 0)
            case 3:
                return self._lcr
            case 4:
                return self._mcr
            case 5:
                status = self._line_status()
                self._overrun = False
                self._update()
                return status
            case 6:
                return self._modem_status()
            case _:
                return self._scr

    def _modem_status(self) -> int:
        """In loopback the modem's inputs are its outputs: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD."""
        if not self._mcr & Modem.LOOPBACK:
            return PEER_READY
        return (
            (self._mcr & Modem.OUTPUTS) << 4 | (self._mcr & Modem.RTS) << 3 | (self._mcr & Modem.DTR) << 5
        )

    def write(self, offset: int, size: int, value: int) -> None:
        check_access(self.name, offset, size, (1, 2, 4, 8), REGISTERS_END)
        value &= 0xFF
        if self._lcr & DLAB and offset <= IER_DLM:
            shift = 8 * offset
            self._divisor = (self._divisor & ~(0xFF << shift)) | value << shift
            return
        match offset:
            case 0:
                self._send(value)
            case 1:
                enable = value & 0x0F
                if (enable ^ self._ier) & Enable.TRANSMITTER_EMPTY:
                    self._transmitter_pending = bool(enable & Enable.TRANSMITTER_EMPTY)
                self._ier = enable
            case 2:
                self._control_fifo(value)
            case 3:
                self._lcr = value
            case 4:
                self._mcr = value & Modem.WRITABLE
                self._refill()
            case 7:
                self._scr = value
        self._update()

    def _send(self, value: int) -> None:
        if self._mcr & Modem.LOOPBACK:
            if len(self._received) < self._depth():
                self._received.append(value)
            else:
                self._overrun = True
                if not self._fcr & Fifo.ENABLE:
                    self._received[0] = value
            self._hold()
        else:
            self._output(bytes((value,)))
        self._transmitter_pending = True

    def _control_fifo(self, value: int) -> None:
        if (value ^ self._fcr) & Fifo.ENABLE:
            value |= Fifo.CLEAR_RECEIVE | Fifo.CLEAR_TRANSMIT
        if value & Fifo.CLEAR_RECEIVE:
            self._received.clear()
        if value & Fifo.CLEAR_TRANSMIT:
            self._transmitter_pending = True
        self._fcr = value & Fifo.KEPT
        self._refill()

    def nodes(self) -> tuple[Node, ...]:
        return (
            Node(
                f"serial@{self.base:x}",
                {
                    "compatible": "ns16550a",
                    "reg": registers(self.base, self.size),
                    "clock-frequency": (CLOCK_HZ,),
                    "interrupts": (self.irq,),
                    "interrupt-parent": (PLIC_LABEL,),
                },
            ),
        )

    def save(self) -> State:
        return {
            "divisor": self._divisor,
            "ier": self._ier,
            "fcr": self._fcr,
            "lcr": self._lcr,
            "mcr": self._mcr,
            "overrun": self._overrun,
            "scr": self._scr,
            "transmitter_pending": self._transmitter_pending,
            "received": bytes(self._received),
            "holding": self._holding,
            "queue": bytes(self._queue),
            "level": self._level,
        }

    def load(self, state: State) -> None:
        self._divisor = state["divisor"]
        self._ier = state["ier"]
        self._fcr = state["fcr"]
        self._lcr = state["lcr"]
        self._mcr = state["mcr"]
        self._overrun = state["overrun"]
        self._scr = state["scr"]
        self._transmitter_pending = state["transmitter_pending"]
        self._received = bytearray(state["received"])
        self._holding = state["holding"]
        self._queue = bytearray(state["queue"])
        self._level = state["level"]
