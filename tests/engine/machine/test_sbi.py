"""SBI: the specification's tables, and the same calls made to the OpenSBI that comes with QEMU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.machine import sbi
from engine.machine.sbi import Error, Extension, HartState
from tests.support.probe import sbi_on_qemu

MASK64 = (1 << 64) - 1
RAM, RAM_SIZE = 0x80000000, 0x10000


class Machine:
    """A `sbi.Platform` that writes down what it is asked. Hart 0 runs, the others are stopped."""

    def __init__(self, harts: int = 4, hypervisor: bool = True) -> None:
        self.hart_count = harts
        self.hypervisor = hypervisor
        self.calls: list[tuple[object, ...]] = []
        self.states = [HartState.STARTED] + [HartState.STOPPED] * (harts - 1)
        self.memory = bytearray(range(256)) * (RAM_SIZE // 256)
        self.output = bytearray()
        self.typed = bytearray()

    @property
    def tells_stolen(self) -> bool:
        return self.hypervisor

    def set_steal_record(self, hart: int, address: int | None) -> int:
        self.calls.append(("set_steal_record", hart, address))
        return Error.SUCCESS if address is None or address + 64 <= RAM_SIZE else Error.INVALID_ADDRESS

    def machine_ids(self) -> tuple[int, int, int]:
        return (0x11, 0x22, 0x33)

    def set_timer(self, hart: int, ticks: int) -> None:
        self.calls.append(("set_timer", hart, ticks))

    def send_ipi(self, mask: int) -> None:
        self.calls.append(("send_ipi", mask))

    def remote_fence_i(self, mask: int) -> None:
        self.calls.append(("fence_i", mask))

    def remote_fence(self, mask: int, start: int, size: int, asid: int | None) -> None:
        self.calls.append(("fence", mask, start, size, asid))

    def hart_start(self, hart: int, address: int, opaque: int) -> int:
        if not RAM <= address < RAM + RAM_SIZE:
            return Error.INVALID_ADDRESS
        self.states[hart] = HartState.STARTED
        self.calls.append(("start", hart, address, opaque))
        return Error.SUCCESS

    def hart_stop(self, hart: int) -> None:
        self.calls.append(("stop", hart))

    def hart_status(self, hart: int) -> HartState:
        return self.states[hart]

    def hart_suspend(self, hart: int) -> None:
        self.calls.append(("suspend", hart))

    def hart_suspend_and_resume(self, hart: int, address: int, opaque: int) -> int:
        if not RAM <= address < RAM + RAM_SIZE:
            return Error.INVALID_ADDRESS
        self.calls.append(("suspend", hart, address, opaque))
        return Error.SUCCESS

    def system_reset(self, kind: int, reason: int) -> None:
        self.calls.append(("reset", kind, reason))

    def console_write(self, data: bytes) -> None:
        self.output += data

    def console_read(self, length: int) -> bytes:
        data = bytes(self.typed[:length])
        del self.typed[:length]
        return data

    def read_memory(self, address: int, length: int) -> bytes | None:
        at = address - RAM
        return bytes(self.memory[at : at + length]) if 0 <= at <= RAM_SIZE - length else None

    def write_memory(self, address: int, data: bytes) -> bool:
        at = address - RAM
        if not 0 <= at <= RAM_SIZE - len(data):
            return False
        self.memory[at : at + len(data)] = data
        return True


def _call(machine: Machine, extension: int, function: int, *arguments: int) -> tuple[int, int | None] | None:
    """(signed error, value), as the specification writes them."""
    a = [*arguments, *[0] * (6 - len(arguments)), function, extension]
    answer = sbi.call(machine, 0, a)
    if answer is None:
        return None
    assert 0 <= answer.error <= MASK64
    return (answer.error - (1 << 64) if answer.error >> 63 else answer.error), answer.value


def test_table() -> None:
    for row in sbi.TABLE:
        assert sbi.name(row.extension, row.function) == row.name
        assert row.name.startswith("sbi_")
    assert sbi.name(Extension.LEGACY_CONSOLE_PUTCHAR, 12345) == "sbi_console_putchar"
    assert sbi.name(Extension.BASE, 99) is None


def test_base() -> None:
    machine = Machine()
    values = [_call(machine, Extension.BASE, function) for function in (0, 1, 2, 4, 5, 6)]
    assert values == [(0, 0x02000000), (0, 0x52494E47), (0, 1), (0, 0x11), (0, 0x22), (0, 0x33)]
    for extension in Extension:
        assert _call(machine, Extension.BASE, 3, extension) == (0, 1)
    for absent in (0x504D55, 0x53555350, 0x43505043, 0x4E41434C, 0x3, 0x5, 0xA000000, MASK64):
        assert _call(machine, Extension.BASE, 3, absent) == (0, 0)


@pytest.mark.parametrize(
    ("extension", "function"), [(0x10, 7), (0x735049, 1), (0x52464E43, 7), (0x3, 0), (0x504D55, 0)]
)
def test_unknown_calls(extension: int, function: int) -> None:
    assert _call(Machine(), extension, function) == (Error.NOT_SUPPORTED, 0)


def test_time() -> None:
    machine = Machine()
    assert _call(machine, Extension.TIME, 0, MASK64) == (0, 0)
    assert machine.calls == [("set_timer", 0, MASK64)]


@pytest.mark.parametrize(
    ("mask", "base", "selected"),
    [
        (0b101, 0, 0b101),
        (0b11, 2, 0b1100),
        (0, MASK64, 0b1111),
        (0b10000, MASK64, 0b1111),
        (0, 0, 0),
        (0, 77, 0),
        (0b10000, 0, None),
        (1, 4, None),
        (0b111, 2, None),
        (1, MASK64 - 1, None),
    ],
)
def test_hart_masks(mask: int, base: int, selected: int | None) -> None:
    """Chapter 3.1, for every function that takes one."""
    for function, call in ((0, "fence_i"), (1, "fence")):
        machine = Machine()
        error = _call(machine, Extension.RFENCE, function, mask, base, 0, 0)
        assert error == ((0, 0) if selected is not None else (Error.INVALID_PARAM, 0))
        expected = [] if selected is None else [(call, selected)]
        assert [(name, harts) for name, harts, *_ in machine.calls] == expected
    machine = Machine()
    _call(machine, Extension.IPI, 0, mask, base)
    assert machine.calls == ([] if selected is None else [("send_ipi", selected)])


def test_fence_ranges() -> None:
    machine = Machine()
    for start, size in ((0, 0), (0x5000, MASK64), (0x5000, 0x2000), (MASK64, 1)):
        assert _call(machine, Extension.RFENCE, 1, 1, 0, start, size) == (0, 0)
    assert _call(machine, Extension.RFENCE, 2, 1, 0, 0x1000, 0x1000, 9) == (0, 0)
    everything = (0, MASK64)
    assert [call[2:4] for call in machine.calls] == [
        everything, everything, (0x5000, 0x2000), (MASK64, 1), (0x1000, 0x1000),
    ]  # fmt: skip
    assert [call[4] for call in machine.calls] == [None] * 4 + [9]
    assert _call(machine, Extension.RFENCE, 1, 1, 0, MASK64, 2) == (Error.INVALID_ADDRESS, 0)


@pytest.mark.parametrize("function", [3, 4, 5, 6])
def test_hypervisor_fences_need_the_extension(function: int) -> None:
    assert _call(Machine(), Extension.RFENCE, function, 1, 0, 0x1000, 0x1000, 9) == (0, 0)
    assert _call(Machine(), Extension.RFENCE, function, 1, 9) == (Error.INVALID_PARAM, 0)
    without = Machine(hypervisor=False)
    assert _call(without, Extension.RFENCE, function, 1, 0) == (Error.NOT_SUPPORTED, 0)
    assert without.calls == []


def test_harts_start_and_stop() -> None:
    machine = Machine()
    assert _call(machine, Extension.HSM, 2, 1) == (0, HartState.STOPPED)
    assert _call(machine, Extension.HSM, 0, 1, 0x1000, 7) == (Error.INVALID_ADDRESS, 0)
    assert _call(machine, Extension.HSM, 0, 1, RAM, 7) == (0, 0)
    assert machine.calls == [("start", 1, RAM, 7)]
    assert _call(machine, Extension.HSM, 0, 1, RAM, 7) == (Error.ALREADY_AVAILABLE, 0)
    assert _call(machine, Extension.HSM, 2, 1) == (0, HartState.STARTED)
    assert _call(machine, Extension.HSM, 0, 4, RAM, 7) == (Error.INVALID_PARAM, 0)
    assert _call(machine, Extension.HSM, 2, MASK64) == (Error.INVALID_PARAM, 0)
    assert _call(machine, Extension.HSM, 1) is None
    assert machine.calls[-1] == ("stop", 0)


def test_suspend_types() -> None:
    machine = Machine()
    assert _call(machine, Extension.HSM, 3, 0, RAM, 5) == (0, 0)
    assert _call(machine, Extension.HSM, 3, 0x80000000, RAM, 5) is None
    assert machine.calls == [("suspend", 0), ("suspend", 0, RAM, 5)]
    assert _call(machine, Extension.HSM, 3, 0x80000000, 0, 5) == (Error.INVALID_ADDRESS, 0)
    for reserved in (1, 0x0FFFFFFF, 0x80000001, 1 << 32):
        assert _call(machine, Extension.HSM, 3, reserved) == (Error.INVALID_PARAM, 0)
    for platform in (0x10000000, 0x7FFFFFFF, 0x90000000, 0xFFFFFFFF):
        assert _call(machine, Extension.HSM, 3, platform) == (Error.NOT_SUPPORTED, 0)


def test_system_reset() -> None:
    for kind, reason in itertools.product((0, 1, 2), (0, 1, 0xE0000000, 0xFFFFFFFF)):
        machine = Machine()
        assert _call(machine, Extension.SRST, 0, kind, reason) is None
        assert machine.calls == [("reset", kind, reason)]
    machine = Machine()
    assert _call(machine, Extension.SRST, 0, 3, 0) == (Error.INVALID_PARAM, 0)
    assert _call(machine, Extension.SRST, 0, 0xF0000000, 0) == (Error.NOT_SUPPORTED, 0)
    assert _call(machine, Extension.SRST, 0, 0, 2) == (Error.INVALID_PARAM, 0)
    assert machine.calls == []


def test_debug_console() -> None:
    machine = Machine()
    assert _call(machine, Extension.DBCN, 0, 5, RAM + 0x41, 0) == (0, 5)
    assert machine.output == b"ABCDE"
    assert _call(machine, Extension.DBCN, 2, 0x1FF) == (0, 0)
    assert machine.output == b"ABCDE\xff"
    machine.typed += b"typed"
    assert _call(machine, Extension.DBCN, 1, 3, RAM, 0) == (0, 3)
    assert _call(machine, Extension.DBCN, 1, 30, RAM + 3, 0) == (0, 2)
    assert machine.memory[:6] == b"typed\5"
    assert _call(machine, Extension.DBCN, 1, 30, RAM, 0) == (0, 0)


def test_debug_console_writes_in_pieces() -> None:
    machine = Machine()
    assert _call(machine, Extension.DBCN, 0, 10000, RAM, 0) == (0, sbi.CONSOLE_CHUNK)


@pytest.mark.parametrize(
    ("length", "low", "high"), [(1, RAM, 1), (1, 0, 0), (2, RAM + RAM_SIZE - 1, 0), (4, MASK64 - 1, 0)]
)
def test_debug_console_refuses_what_is_not_the_guest_s_memory(length: int, low: int, high: int) -> None:
    machine = Machine()
    machine.typed += b"typed"
    before = bytes(machine.memory)
    for function in (0, 1):
        assert _call(machine, Extension.DBCN, function, length, low, high) == (Error.INVALID_PARAM, 0)
    assert (machine.output, machine.typed, bytes(machine.memory)) == (b"", b"typed", before)


def test_legacy_calls_leave_a1_alone() -> None:
    machine = Machine()
    assert _call(machine, Extension.LEGACY_SET_TIMER, 9, 100) == (0, None)
    assert _call(machine, Extension.LEGACY_CONSOLE_PUTCHAR, 9, ord("x")) == (0, None)
    assert _call(machine, Extension.LEGACY_CONSOLE_GETCHAR, 9) == (-1, None)
    machine.typed += b"y"
    assert _call(machine, Extension.LEGACY_CONSOLE_GETCHAR, 9) == (ord("y"), None)
    assert _call(machine, Extension.LEGACY_SHUTDOWN, 9) is None
    assert machine.calls == [("set_timer", 0, 100), ("reset", 0, 0)]
    assert machine.output == b"x"


@given(
    st.lists(
        st.one_of(st.integers(0, MASK64), st.integers(0, 8), st.sampled_from([RAM, 0x80000000, MASK64])),
        min_size=8,
        max_size=8,
    ),
    st.sampled_from([row.extension for row in sbi.TABLE]),
    st.integers(0, 7),
)
def test_no_arguments_raise(arguments: list[int], extension: int, function: int) -> None:
    for a in (arguments, [*arguments[:6], function, int(extension)]):
        answer = sbi.call(Machine(), 0, a)
        assert answer is None or 0 <= answer.error <= MASK64


def _opensbi_calls() -> list[Sequence[int]]:
    """Calls whose answer the specification fixes and that end or stop nothing."""
    calls: list[Sequence[int]] = []

    def add(extension: int, function: int, *a: int) -> None:
        calls.append([*a, *[0] * (6 - len(a)), function, extension])

    for probed in (0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x12345678):
        add(Extension.BASE, 3, probed)
    add(Extension.BASE, 7)
    add(0x12345678, 0)
    add(Extension.IPI, 1)
    add(Extension.IPI, 0, 0, 0)
    add(Extension.RFENCE, 0, 1, 0)
    add(Extension.RFENCE, 1, 1, 0, 0, 0)
    add(Extension.RFENCE, 2, 1, 0, 0x1000, 0x1000, 3)
    for function in (3, 4, 5, 6):
        add(Extension.RFENCE, function, 1, 0, 0x1000, 0x1000, 3)
    add(Extension.RFENCE, 7)
    add(Extension.HSM, 2, 0)
    add(Extension.HSM, 2, 1)
    add(Extension.HSM, 2, 9)
    add(Extension.HSM, 0, 0, 0x80200000, 0)
    add(Extension.HSM, 0, 9, 0x80200000, 0)
    add(Extension.HSM, 3, 1)
    add(Extension.HSM, 3, 0x0FFFFFFF)
    add(Extension.HSM, 9)
    add(Extension.SRST, 0, 3, 0)
    add(Extension.SRST, 0, 0, 2)
    add(Extension.SRST, 1)
    return calls


def test_opensbi_answers_the_same(tmp_path: Path) -> None:
    calls = _opensbi_calls()
    theirs = sbi_on_qemu(calls, tmp_path)
    different = []
    for arguments, their in zip(calls, theirs, strict=True):
        answer = sbi.call(Machine(harts=1), 0, arguments)
        assert answer is not None
        if answer != their:
            different.append((sbi.name(arguments[7], arguments[6]), arguments, answer, their))
    assert different == []


def test_stolen_time() -> None:
    """Chapter 16.1: an aligned address of RAM, all ones for no longer, flags 0; absent where nobody steals."""
    machine = Machine()
    for low, high, flags, error in (
        (0x40, 0, 0, Error.SUCCESS), (0x44, 0, 0, Error.INVALID_PARAM), (0x40, 0, 1, Error.INVALID_PARAM),
        (0x40, 1, 0, Error.INVALID_ADDRESS), (RAM_SIZE, 0, 0, Error.INVALID_ADDRESS),
        (MASK64, MASK64, 0, Error.SUCCESS), (MASK64, 0, 0, Error.INVALID_PARAM),
    ):  # fmt: skip
        assert _call(machine, Extension.STA, 0, low, high, flags)[0] == error, (low, high, flags)
    assert machine.calls[0] == ("set_steal_record", 0, 0x40)
    assert machine.calls[-1] == ("set_steal_record", 0, None)
    alone = Machine(hypervisor=False)
    assert _call(alone, Extension.BASE, 3, Extension.STA) == (0, 0)
    assert _call(alone, Extension.STA, 0, 0x40)[0] == Error.NOT_SUPPORTED
