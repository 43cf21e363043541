"""Who gets the harts of a host: one scheduler, one file, behind one interface (see scheduler.Scheduler).

SCHEDULERS is the one table of them; a stack says which it comes with (engine.hypervisor.stacks).
"""

from __future__ import annotations

from engine.commands import SchedulerId
from engine.hypervisor.scheduling.credit import Credit
from engine.hypervisor.scheduling.fair_share import FairShare
from engine.hypervisor.scheduling.scheduler import Scheduler

SCHEDULERS: dict[SchedulerId, type[Scheduler]] = {"credit": Credit, "fair-share": FairShare}
