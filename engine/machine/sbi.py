"""SBI: what a supervisor asks of the firmware below it. One service for the built-in firmware and for the
hypervisor.

RISC-V Supervisor Binary Interface 2.0. The caller executes ECALL with the extension in a7, the function in a6
and arguments in a0..a5; it gets an error in a0 and a value in a1. Legacy extensions (chapter 5) have no
function number and return in a0 alone. `TABLE` has one row for each function; what is not there returns
SBI_ERR_NOT_SUPPORTED.

Implementation id: 0x52494e47 ("RING"), outside the numbers given out so far (chapter 4.8), version 1.
Absent, and reported so by probe: PMU, SUSP, CPPC, NACL, and STA where there is nobody to steal time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from engine.bits import MASK64

SPEC_VERSION = 2 << 24
IMPLEMENTATION_ID = 0x52494E47
IMPLEMENTATION_VERSION = 1
CONSOLE_CHUNK = 4096
ALL_HARTS = MASK64
WHOLE_ADDRESS_SPACE = MASK64


class Error(IntEnum):
    """Standard error codes (table 1)."""

    SUCCESS = 0
    FAILED = -1
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    DENIED = -4
    INVALID_ADDRESS = -5
    ALREADY_AVAILABLE = -6
    ALREADY_STARTED = -7
    ALREADY_STOPPED = -8


class Extension(IntEnum):
    """Extension ids."""

    LEGACY_SET_TIMER = 0x0
    LEGACY_CONSOLE_PUTCHAR = 0x1
    LEGACY_CONSOLE_GETCHAR = 0x2
    LEGACY_SHUTDOWN = 0x8
    BASE = 0x10
    TIME = 0x54494D45
    IPI = 0x735049
    RFENCE = 0x52464E43
    HSM = 0x48534D
    SRST = 0x53525354
    DBCN = 0x4442434E
    STA = 0x535441


class HartState(IntEnum):
    """What hart_get_status returns (table 18)."""

    STARTED = 0
    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    SUSPENDED = 4
    SUSPEND_PENDING = 5
    RESUME_PENDING = 6


class ResetType(IntEnum):
    SHUTDOWN = 0
    COLD_REBOOT = 1
    WARM_REBOOT = 2


class ResetReason(IntEnum):
    NONE = 0
    SYSTEM_FAILURE = 1


class StealRecord:
    """What a hart reads of its stolen time (table 64): 64 bytes at a multiple of 64, of which these come first:
    sequence u32 (odd while it is being changed), flags u32 (0), steal u64 (ns)."""

    SIZE = 64
    LAYOUT = struct.Struct("<IIQ")


class Answer(NamedTuple):
    """What the caller finds: `error` for a0 and `value` for a1, as unsigned words; None leaves a1 as it was.
    """

    error: int
    value: int | None


class Platform(Protocol):
    """The machine as SBI sees it. Hart masks are absolute: bit h is hart h. Addresses are supervisor
    physical.

    Arguments have been checked: harts exist, a start address is a number and nothing more.
    """

    @property
    def hart_count(self) -> int: ...

    @property
    def hypervisor(self) -> bool:
        """Do the harts have the H extension?"""
        ...

    def machine_ids(self) -> tuple[int, int, int]:
        """mvendorid, marchid, mimpid."""
        ...

    def set_timer(self, hart: int, ticks: int) -> None:
        """Clear the hart's supervisor timer interrupt and set it when time >= ticks."""
        ...

    def send_ipi(self, mask: int) -> None:
        """Set the supervisor software interrupt of these harts."""
        ...

    def remote_fence_i(self, mask: int) -> None: ...

    def remote_fence(self, mask: int, start: int, size: int, asid: int | None) -> None:
        """SFENCE.VMA on these harts over [start, start + size); size 2**64 - 1 with start 0 is everything."""
        ...

    def hart_start(self, hart: int, address: int, opaque: int) -> int:
        """Start a stopped hart in S mode at a physical address with a0 = its id, a1 = opaque.

        SUCCESS, or INVALID_ADDRESS where nothing can be executed.
        """
        ...

    def hart_stop(self, hart: int) -> None:
        """Stop the calling hart; it does not return."""
        ...

    def hart_status(self, hart: int) -> HartState: ...

    def hart_suspend(self, hart: int) -> None:
        """Sleep as WFI does, keeping everything; the call returns success when the hart wakes."""
        ...

    def hart_suspend_and_resume(self, hart: int, address: int, opaque: int) -> int:
        """Sleep and lose the registers: wake as hart_start does. SUCCESS or INVALID_ADDRESS."""
        ...

    def system_reset(self, kind: int, reason: int) -> None:
        """Shut down or reboot (ResetType, ResetReason); the caller does not go on."""
        ...

    @property
    def tells_stolen(self) -> bool:
        """Is there somebody who runs other things on these harts?"""
        ...

    def set_steal_record(self, hart: int, address: int | None) -> int:
        """Keep the hart's stolen time at this physical address, None: nowhere. SUCCESS or INVALID_ADDRESS."""
        ...

    def console_write(self, data: bytes) -> None: ...

    def console_read(self, length: int) -> bytes:
        """Up to `length` bytes that wait for the guest."""
        ...

    def read_memory(self, address: int, length: int) -> bytes | None:
        """Guest physical memory, None unless all of it is RAM of this guest."""
        ...

    def write_memory(self, address: int, data: bytes) -> bool:
        """False (and nothing written) unless all of it is RAM of this guest."""
        ...


class _RefusedError(Exception):
    def __init__(self, error: Error) -> None:
        super().__init__(error.name)
        self.error = error


Handler = Callable[[Platform, int, Sequence[int]], "Answer | None"]


class Function(NamedTuple):
    """A row: `name` as the specification has it; `handler(platform, hart, [a0..a7])`."""

    extension: Extension
    function: int
    name: str
    handler: Handler


def _answer(error: int = Error.SUCCESS, value: int = 0) -> Answer:
    return Answer(error & MASK64, value & MASK64)


def _harts(platform: Platform, mask: int, base: int) -> int:
    """The absolute mask of (hart_mask, hart_mask_base) (chapter 3.1)."""
    everyone = (1 << platform.hart_count) - 1
    if base == ALL_HARTS:
        return everyone
    if mask and base >= platform.hart_count:
        raise _RefusedError(Error.INVALID_PARAM)
    selected = mask << base if mask else 0
    if selected & ~everyone:
        raise _RefusedError(Error.INVALID_PARAM)
    return selected


def _hart(platform: Platform, hart: int) -> int:
    if hart >= platform.hart_count:
        raise _RefusedError(Error.INVALID_PARAM)
    return hart


def _constant(value: int) -> Handler:
    return lambda _platform, _hart, _a: _answer(value=value)


def _machine_id(index: int) -> Handler:
    return lambda platform, _hart, _a: _answer(value=platform.machine_ids()[index])


def _probe(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    return _answer(value=int(a[0] in _EXTENSIONS and (a[0] != Extension.STA or platform.tells_stolen)))


def _set_timer(platform: Platform, hart: int, a: Sequence[int]) -> Answer:
    platform.set_timer(hart, a[0])
    return _answer()


def _send_ipi(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    platform.send_ipi(_harts(platform, a[0], a[1]))
    return _answer()


def _fence_i(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    platform.remote_fence_i(_harts(platform, a[0], a[1]))
    return _answer()


def _fence(platform: Platform, a: Sequence[int], asid: int | None) -> Answer:
    mask, start, size = _harts(platform, a[0], a[1]), a[2], a[3]
    if size == WHOLE_ADDRESS_SPACE or (start == 0 and size == 0):
        start, size = 0, WHOLE_ADDRESS_SPACE
    elif start + size > 1 << 64:
        raise _RefusedError(Error.INVALID_ADDRESS)
    platform.remote_fence(mask, start, size, asid)
    return _answer()


def _fence_vma(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    return _fence(platform, a, None)


def _fence_vma_asid(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    return _fence(platform, a, a[4])


def _hypervisor_fence(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    """HFENCE.GVMA or HFENCE.VVMA on other harts, of all guests or one: at least what is asked for is forgotten."""
    if not platform.hypervisor:
        raise _RefusedError(Error.NOT_SUPPORTED)
    return _fence(platform, a, None)


def _hart_start(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    hart = _hart(platform, a[0])
    if platform.hart_status(hart) != HartState.STOPPED:
        raise _RefusedError(Error.ALREADY_AVAILABLE)
    return _answer(platform.hart_start(hart, a[1], a[2]))


def _hart_stop(platform: Platform, hart: int, _a: Sequence[int]) -> None:
    platform.hart_stop(hart)


def _hart_get_status(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    return _answer(value=platform.hart_status(_hart(platform, a[0])))


RETENTIVE, NON_RETENTIVE = 0x00000000, 0x80000000


def _hart_suspend(platform: Platform, hart: int, a: Sequence[int]) -> Answer | None:
    """Suspend types (table 19): the two defaults; 0x10000000 and above in each half are a platform's own."""
    kind = a[0]
    if kind == RETENTIVE:
        platform.hart_suspend(hart)
        return _answer()
    if kind == NON_RETENTIVE:
        error = platform.hart_suspend_and_resume(hart, a[1], a[2])
        return None if error == Error.SUCCESS else _answer(error)
    platform_specific = kind <= 0xFFFFFFFF and kind & 0x7FFFFFFF >= 0x10000000
    raise _RefusedError(Error.NOT_SUPPORTED if platform_specific else Error.INVALID_PARAM)


def _system_reset(platform: Platform, _hart_id: int, a: Sequence[int]) -> None:
    """Types from 0xf0000000 and reasons from 0xe0000000 are somebody's own; the rest of the gaps is reserved.
    """
    kind, reason = a[0], a[1]
    if kind > ResetType.WARM_REBOOT:
        raise _RefusedError(Error.NOT_SUPPORTED if 0xF0000000 <= kind <= 0xFFFFFFFF else Error.INVALID_PARAM)
    if reason > ResetReason.SYSTEM_FAILURE and not 0xE0000000 <= reason <= 0xFFFFFFFF:
        raise _RefusedError(Error.INVALID_PARAM)
    platform.system_reset(kind, reason)


def _console_write(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    """At most 4096 bytes a call; the caller goes on with the rest (chapter 12.1)."""
    if a[2]:
        raise _RefusedError(Error.INVALID_PARAM)
    data = platform.read_memory(a[1], min(a[0], CONSOLE_CHUNK))
    if data is None:
        raise _RefusedError(Error.INVALID_PARAM)
    platform.console_write(data)
    return _answer(value=len(data))


def _console_read(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    length = min(a[0], CONSOLE_CHUNK)
    if a[2] or platform.read_memory(a[1], length) is None:
        raise _RefusedError(Error.INVALID_PARAM)
    data = platform.console_read(length)
    platform.write_memory(a[1], data)
    return _answer(value=len(data))


def _console_write_byte(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    platform.console_write(bytes((a[0] & 0xFF,)))
    return _answer()


def _set_steal_record(platform: Platform, hart: int, a: Sequence[int]) -> Answer:
    """All ones in both halves of the address: no longer (chapter 16.1)."""
    low, high, flags = a[0], a[1], a[2]
    if not platform.tells_stolen:
        raise _RefusedError(Error.NOT_SUPPORTED)
    if flags:
        raise _RefusedError(Error.INVALID_PARAM)
    if low == high == MASK64:
        return _answer(platform.set_steal_record(hart, None))
    if low % StealRecord.SIZE:
        raise _RefusedError(Error.INVALID_PARAM)
    if high:
        raise _RefusedError(Error.INVALID_ADDRESS)
    return _answer(platform.set_steal_record(hart, low))


def _legacy_set_timer(platform: Platform, hart: int, a: Sequence[int]) -> Answer:
    platform.set_timer(hart, a[0])
    return Answer(0, None)


def _legacy_putchar(platform: Platform, _hart_id: int, a: Sequence[int]) -> Answer:
    platform.console_write(bytes((a[0] & 0xFF,)))
    return Answer(0, None)


def _legacy_getchar(platform: Platform, _hart_id: int, _a: Sequence[int]) -> Answer:
    data = platform.console_read(1)
    return Answer(data[0] if data else MASK64, None)


def _legacy_shutdown(platform: Platform, _hart_id: int, _a: Sequence[int]) -> None:
    platform.system_reset(ResetType.SHUTDOWN, ResetReason.NONE)


PROBE = 3
TABLE: tuple[Function, ...] = (
    Function(Extension.LEGACY_SET_TIMER, 0, "sbi_set_timer", _legacy_set_timer),
    Function(Extension.LEGACY_CONSOLE_PUTCHAR, 0, "sbi_console_putchar", _legacy_putchar),
    Function(Extension.LEGACY_CONSOLE_GETCHAR, 0, "sbi_console_getchar", _legacy_getchar),
    Function(Extension.LEGACY_SHUTDOWN, 0, "sbi_shutdown", _legacy_shutdown),
    Function(Extension.BASE, 0, "sbi_get_spec_version", _constant(SPEC_VERSION)),
    Function(Extension.BASE, 1, "sbi_get_impl_id", _constant(IMPLEMENTATION_ID)),
    Function(Extension.BASE, 2, "sbi_get_impl_version", _constant(IMPLEMENTATION_VERSION)),
    Function(Extension.BASE, PROBE, "sbi_probe_extension", _probe),
    Function(Extension.BASE, 4, "sbi_get_mvendorid", _machine_id(0)),
    Function(Extension.BASE, 5, "sbi_get_marchid", _machine_id(1)),
    Function(Extension.BASE, 6, "sbi_get_mimpid", _machine_id(2)),
    Function(Extension.TIME, 0, "sbi_set_timer", _set_timer),
    Function(Extension.IPI, 0, "sbi_send_ipi", _send_ipi),
    Function(Extension.RFENCE, 0, "sbi_remote_fence_i", _fence_i),
    Function(Extension.RFENCE, 1, "sbi_remote_sfence_vma", _fence_vma),
    Function(Extension.RFENCE, 2, "sbi_remote_sfence_vma_asid", _fence_vma_asid),
    Function(Extension.RFENCE, 3, "sbi_remote_hfence_gvma_vmid", _hypervisor_fence),
    Function(Extension.RFENCE, 4, "sbi_remote_hfence_gvma", _hypervisor_fence),
    Function(Extension.RFENCE, 5, "sbi_remote_hfence_vvma_asid", _hypervisor_fence),
    Function(Extension.RFENCE, 6, "sbi_remote_hfence_vvma", _hypervisor_fence),
    Function(Extension.HSM, 0, "sbi_hart_start", _hart_start),
    Function(Extension.HSM, 1, "sbi_hart_stop", _hart_stop),
    Function(Extension.HSM, 2, "sbi_hart_get_status", _hart_get_status),
    Function(Extension.HSM, 3, "sbi_hart_suspend", _hart_suspend),
    Function(Extension.SRST, 0, "sbi_system_reset", _system_reset),
    Function(Extension.DBCN, 0, "sbi_debug_console_write", _console_write),
    Function(Extension.DBCN, 1, "sbi_debug_console_read", _console_read),
    Function(Extension.DBCN, 2, "sbi_debug_console_write_byte", _console_write_byte),
    Function(Extension.STA, 0, "sbi_steal_time_set_shmem", _set_steal_record),
)
_ROWS = {(row.extension.value, row.function): row for row in TABLE}
if len(_ROWS) != len(TABLE):
    raise ValueError("two rows of the SBI table have the same extension and function")
_EXTENSIONS = frozenset(row.extension.value for row in TABLE)
_LEGACY_END = 0x10


def _row(extension: int, function: int) -> Function | None:
    return _ROWS.get((extension, 0 if extension < _LEGACY_END else function))


def call(platform: Platform, hart: int, arguments: Sequence[int]) -> Answer | None:
    """Serve an ECALL of `hart` with a0..a7. None: the hart does not return from the call (stopped, reset).

    Never raises for anything a guest can pass. The caller advances sepc past the ECALL before a hart that
    suspends with its registers kept goes to sleep.
    """
    row = _row(arguments[7], arguments[6])
    if row is None:
        return _answer(Error.NOT_SUPPORTED)
    try:
        return row.handler(platform, hart, arguments)
    except _RefusedError as refusal:
        return _answer(refusal.error)


def name(extension: int, function: int) -> str | None:
    """The specification's name of a call, e.g. `sbi_send_ipi`; None for one that is not served."""
    row = _row(extension, function)
    return row.name if row else None
