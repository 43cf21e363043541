"""What a hart says that its TLB holds is what the next access finds there: compared with the walks that it then makes."""

from __future__ import annotations

import re

import pytest

from engine import guests
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import BARE_METAL, Configuration
from engine.isa.decoder import decode
from engine.machine.loader import inspect
from engine.machine.tiers import Tier
from engine.trace.rings import Trace

MASK64 = (1 << 64) - 1
STEPS = 3000


@pytest.mark.parametrize("tier", Tier)
def test_what_the_tlb_holds_is_not_walked_for(tier: Tier) -> None:
    host = Host(1, 1, 64, Configuration.of(BARE_METAL), Trace(), lambda _guest, _data: None, tier=tier)
    host.add_guest(1, inspect(guests.load_image("ringos"), "ringos"), 1, 16, "run=work pagefault 40")
    guest = host.guests[1]
    host.run(60_000)
    seen: set[tuple[str, bool]] = set()
    for _ in range(STEPS):
        hart = guest.hart(0)
        content = guest.read(0, hart.pc, 4, physical=False)
        row = decode(int.from_bytes(content, "little")) if content else None
        found = re.search(r"\b(load|store)\(rs1 \+ imm", row.semantics) if row else None
        if row is None or found is None or hart.pc & 0xFFF > 0xFFC:
            host.run(1)
            continue
        access = found[1]
        operands = row.operands(int.from_bytes(content or b"", "little"))
        address = hart.x[operands["rs1"]] + operands["imm"] & MASK64
        expected = [hart.holds(hart.pc)[2], hart.holds(address)[access == "store"]]
        began, traps, walks = hart.steps, host.trace.total(1), hart.walks
        host.run(1)
        if hart.steps == began + 1 and host.trace.total(1) == traps:
            assert hart.walks - walks == expected.count(False), f"{row.mnemonic} at {hart.pc:#x}"
            seen.add((access, expected[1]))
    assert seen == {("load", True), ("load", False), ("store", True), ("store", False)}
