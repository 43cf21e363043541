"""Guests that exit in one way only, hosts for them, and native code that is made to leave exits to Python: for the tests
and the figures of VM exits."""

from __future__ import annotations

import ctypes

from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.machine.loader import LoadedImage
from engine.machine.tiers import Tier
from engine.trace.rings import Trace

#: A kernel with its RAM where it is and one page table of small pages from address 0 on: `lowest`, in s3, of which the
#: first page is for `{body}` to map. s4: the entry that makes it `window`; s2: satp. 0x200000: the UART.
PAGING = """
_start:
    la s0, root
    la t2, middle
    srli t1, t2, 12
    slli t1, t1, 10
    ori t1, t1, 1
    sd t1, 0(s0)
    la s3, lowest
    srli t1, s3, 12
    slli t1, t1, 10
    ori t1, t1, 1
    sd t1, 0(t2)
    li t1, 0x040000c7
    sd t1, 8(t2)
    li t1, 0x200000cf
    sd t1, 16(s0)
    srli s2, s0, 12
    li t0, 8
    slli t0, t0, 60
    or s2, s2, t0
    la s4, window
    srli s4, s4, 12
    slli s4, s4, 10
    ori s4, s4, 0xc7
    csrw satp, s2
    {body}
.data
.balign 4096
root: .zero 4096
middle: .zero 4096
lowest: .zero 4096
window: .zero 4096
"""


def vm_host(
    image: LoadedImage,
    configuration: Configuration,
    tier: Tier,
    *,
    arguments: str = "",
    harts: int = 1,
    memory_mib: int = 16,
) -> Host:
    """A host with one guest that has so many vCPUs and so much memory."""
    host = Host(
        1, harts, 4 * memory_mib, configuration, Trace(capacity=1 << 14), lambda _guest, _data: None, tier=tier
    )
    host.add_guest(1, image, harts, memory_mib, arguments)
    return host


def refuse(host: Host, refusing: bool) -> None:
    """From now on native code leaves every exit to Python, or no longer does."""
    for hart, vcpu in zip(host.harts, host.loaded, strict=True):
        if vcpu is None:
            continue
        if hart.virtual:
            hart.guest_ram_at = 0 if refusing else ctypes.addressof(vcpu.vm.ram)
        else:
            hart.virtual_at = 0 if refusing else ctypes.addressof(vcpu.virtual)
