"""The UART: random register accesses against QEMU's, then what QEMU cannot show: what the host sends."""

from __future__ import annotations

import random

import pytest

from engine.devices.uart import QUEUE_LIMIT
from tests.support.board import Devices
from tests.support.qtest import Qtest

BASE = 0x10000000
RBR = THR = BASE
IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = (BASE + offset for offset in (1, 2, 2, 3, 4, 5, 6, 7))
LOOPBACK = 0x10
DATA_READY, OVERRUN = 0x01, 0x02
NONE, THRE, RECEIVED, LINE_STATUS, TIMEOUT = 0x1, 0x2, 0x4, 0x6, 0xC
PLIC_PENDING = 0xC001000


@pytest.mark.parametrize("seed", range(8))
def test_registers_behave_as_on_qemu(seed: int) -> None:
    """The receive trigger level stays at 1, because QEMU's clock stands still here and its timeout never
    comes.
    """
    chance = random.Random(seed)
    devices = Devices()
    script: list[str] = []
    with Qtest() as qemu:
        for _ in range(400):
            register = chance.choice((THR, THR, IER, FCR, LCR, MCR, LSR, MSR, SCR, IIR, RBR))
            if chance.random() < 0.45:
                value = chance.getrandbits(8)
                if register == FCR:
                    value &= 0x3F
                elif register == LCR:
                    value = chance.choice((0x03, 0x03, 0x83))
                elif register == MCR:
                    value = chance.choice((LOOPBACK, 0x1F, value))
                script.append(f"write {register - BASE} {value:#x}")
                qemu.write(register, 1, value)
                devices.write(register, 1, value)
            else:
                theirs, ours = qemu.read(register, 1), devices.read(register, 1)
                script.append(f"read {register - BASE}: {theirs:#x}")
                assert ours == theirs, f"ours {ours:#x} after {script}"
    assert len(script) == 400


def test_wide_accesses_reach_one_register_as_on_qemu() -> None:
    devices = Devices()
    with Qtest() as qemu:
        for board in (qemu, devices):
            board.write(BASE + 4, 4, 0xAABBCC03)
            board.write(SCR - 1, 2, 0x1234)
        for address, size in ((BASE, 8), (BASE + 4, 4), (BASE + 4, 2), (BASE + 6, 2), (SCR, 1)):
            assert devices.read(address, size) == qemu.read(address, size), f"{address:#x}, {size}"


def test_what_is_sent_comes_out() -> None:
    devices = Devices()
    for byte in b"hello\n":
        assert devices.read(LSR, 1) & 0x60 == 0x60
        devices.write(THR, 1, byte)
    assert devices.output == b"hello\n"


def test_divisor_latch_hides_data_and_interrupt_enable() -> None:
    devices = Devices()
    devices.write(LCR, 1, 0x83)
    devices.write(BASE, 1, 0x34)
    devices.write(IER, 1, 0x12)
    assert (devices.read(BASE, 1), devices.read(IER, 1)) == (0x34, 0x12)
    devices.write(LCR, 1, 0x03)
    assert devices.read(IER, 1) == 0
    assert devices.output == b""


def test_received_bytes_interrupt_and_are_read_in_order() -> None:
    devices = Devices()
    devices.write(IER, 1, 1)
    assert devices.uart.receive(b"ab") == 2
    assert devices.read(LSR, 1) & DATA_READY
    assert devices.read(IIR, 1) == RECEIVED
    assert devices.read(PLIC_PENDING, 4) == 1 << 10
    assert [devices.read(RBR, 1) for _ in range(2)] == [ord("a"), ord("b")]
    assert devices.read(IIR, 1) == NONE
    assert not devices.read(LSR, 1) & DATA_READY
    assert [event for event in devices.events if event[0] == "uart"] == [("uart", True), ("uart", False)]


@pytest.mark.parametrize("fifo", [0x00, 0x01])
def test_nothing_is_lost_however_much_the_host_sends(fifo: int) -> None:
    devices = Devices()
    devices.write(FCR, 1, fifo)
    sent = bytes(index % 251 for index in range(1000))
    assert devices.uart.receive(sent) == len(sent)
    read = bytearray()
    while devices.read(LSR, 1) & DATA_READY:
        read.append(devices.read(RBR, 1))
    assert read == sent
    assert not devices.read(LSR, 1) & OVERRUN


def test_the_queue_is_bounded() -> None:
    devices = Devices()
    taken = devices.uart.receive(bytes(QUEUE_LIMIT + 100))
    assert taken == QUEUE_LIMIT
    assert devices.uart.receive(b"xy") == 1, "one byte moved up into the receiver"
    assert devices.uart.receive(b"x") == 0


def test_below_the_trigger_level_the_timeout_comes_at_once() -> None:
    devices = Devices()
    devices.write(FCR, 1, 0x81)
    devices.write(IER, 1, 1)
    devices.uart.receive(b"1234567")
    assert devices.read(IIR, 1) == 0xC0 | TIMEOUT
    devices.uart.receive(b"8")
    assert devices.read(IIR, 1) == 0xC0 | RECEIVED


def test_clearing_the_receive_fifo_drops_what_it_holds_and_lets_the_rest_up() -> None:
    devices = Devices()
    devices.write(FCR, 1, 0x01)
    devices.uart.receive(bytes(range(20)))
    devices.write(FCR, 1, 0x03)
    assert devices.read(RBR, 1) == 16


def test_loopback_keeps_the_host_out() -> None:
    devices = Devices()
    devices.write(MCR, 1, LOOPBACK)
    devices.uart.receive(b"host")
    devices.write(THR, 1, ord("g"))
    assert devices.read(RBR, 1) == ord("g")
    assert not devices.read(LSR, 1) & DATA_READY
    devices.write(MCR, 1, 0)
    assert devices.read(RBR, 1) == ord("h")
    assert devices.output == b""


def test_firmware_takes_input_whatever_the_guest_has_set() -> None:
    devices = Devices()
    devices.write(FCR, 1, 0x01)
    devices.write(IER, 1, 0x01)
    devices.write(LCR, 1, 0x83)
    devices.uart.receive(bytes(range(40)))
    assert devices.uart.take(20) == bytes(range(20))
    devices.write(LCR, 1, 0x03)
    assert devices.read(RBR, 1) == 20
    assert devices.uart.take(100) == bytes(range(21, 40))
    assert (devices.uart.take(1), devices.uart.waiting, devices.uart.level()) == (b"", 0, False)


def test_transmitter_interrupt_is_taken_back_by_reading_its_identity() -> None:
    devices = Devices()
    devices.write(IER, 1, 2)
    assert devices.uart.level()
    assert devices.read(IIR, 1) == THRE
    assert not devices.uart.level()
    devices.write(THR, 1, 0x41)
    assert devices.uart.level()


def test_an_overrun_is_the_most_urgent_interrupt() -> None:
    devices = Devices()
    devices.write(MCR, 1, LOOPBACK)
    devices.write(IER, 1, 0x7)
    devices.write(THR, 1, 1)
    devices.write(THR, 1, 2)
    assert devices.read(IIR, 1) == LINE_STATUS
    assert devices.read(LSR, 1) & OVERRUN
    assert devices.read(IIR, 1) == RECEIVED
