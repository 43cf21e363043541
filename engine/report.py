"""What clients hear of a lab: ticks (what happened since the last one) and the status of its guests.

A report is about one present. When the lab jumps to another moment, what was waiting to be told is void
(`forget`), and clients get a keyframe instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from engine.document import Document
from engine.hypervisor.guest import FAILED, STOPPED, Guest
from engine.hypervisor.host import Host
from engine.hypervisor.migration import Progress
from engine.world import World

SAMPLE_RECORDS = 48
#: Console output that nobody drains is kept up to this much for each guest.
PENDING_BYTES = 64 << 10
#: Of a migration, the latest rounds.
ROUNDS_TOLD = 32


class Report:
    """Collects between drains; `hear` is where the world's guests print to."""

    def __init__(self) -> None:
        self._console: dict[int, bytearray] = {}
        self._hosts: dict[int, tuple[int, int, int]] = {}  # time, busy time and permille at the last drain
        self._states: dict[int, int] = {}
        self._migrations: dict[int, tuple[Any, ...]] = {}

    def hear(self, guest: int, data: bytes) -> None:
        pending = self._console.setdefault(guest, bytearray())
        pending += data
        if len(pending) > PENDING_BYTES:
            del pending[:-PENDING_BYTES]

    def forget(self, document: Document, world: World) -> None:
        """The present is now another one: nothing of the old one is told any more."""
        world.trace.drain_counts()
        world.trace.drain_sample(SAMPLE_RECORDS)
        self._console = {}
        self._hosts = {host.id: (host.time, host.busy_ns, 0) for host in world.hosts.values()}
        self._states = {guest: world.guest(guest).state for guest in document.guests}
        self._migrations = {guest: _stage(progress) for guest, progress in world.migrations.items()}

    def drain(self, document: Document, world: World) -> dict[str, Any]:
        """What happened since the last drain (or since `forget`)."""
        guests = [(guest, world.guest(guest)) for guest in document.guests]
        hosts = list(world.hosts.values())
        before, self._hosts = self._hosts, {}
        for host in hosts:
            time, busy_ns, share = before.get(host.id, (host.time, host.busy_ns, 0))
            passed = host.time - time
            if passed > 0:
                worked = max(0, host.busy_ns - busy_ns)  # another machine in its place begins at 0
                share = min(1000, worked * 1000 // passed)
            elif not document.running or host.idle:
                share = 0  # else its turn has not come since the last drain, and it is as busy as it was
            self._hosts[host.id] = (host.time, host.busy_ns, share)
        busy = [share for _, _, share in self._hosts.values()]
        console, self._console = self._console, {}
        return {
            "position": world.position,
            "time": world.time,
            "running": document.running,
            "guests": {
                "id": _column("H", (guest for guest, _ in guests)),
                "state": bytes(machine.state for _, machine in guests),
                "level": bytes(machine.level for _, machine in guests),
                "pc": _column("Q", (machine.pc for _, machine in guests)),
                "instructions": _column("Q", (machine.instructions for _, machine in guests)),
                "exits": _column("Q", (machine.exits for _, machine in guests)),
                "ran": _column("Q", (machine.ran for _, machine in guests)),
                "stolen": _column("Q", (machine.stolen_in_all for _, machine in guests)),
                "present": _column("I", (machine.pages.present for _, machine in guests)),
                "swapped": _column("I", (machine.pages.swapped for _, machine in guests)),
                "ballooned": _column("I", (machine.pages.ballooned for _, machine in guests)),
            },
            "hosts": host_columns(hosts, busy),
            "counts": world.trace.drain_counts(),
            "sample": world.trace.drain_sample(SAMPLE_RECORDS).tobytes(),
            "console": [[guest, bytes(data)] for guest, data in console.items()],
            "notices": self._notices(document, world),
            "migrations": self._changed_migrations(world),
        }

    def _changed_migrations(self, world: World) -> list[dict[str, Any]]:
        """Those that had an event since the last drain."""
        before = self._migrations
        self._migrations = {guest: _stage(progress) for guest, progress in world.migrations.items()}
        return [
            migration_row(progress)
            for guest, progress in world.migrations.items()
            if self._migrations[guest] != before.get(guest)
        ]

    def _notices(self, document: Document, world: World) -> list[dict[str, Any]]:
        notices = []
        for guest, row in document.guests.items():
            machine = world.guest(guest)
            state, before = machine.state, self._states.get(guest)
            self._states[guest] = state
            if state == before or state not in (STOPPED, FAILED):
                continue
            if state == FAILED and machine.failure is not None:
                key, params, level = (
                    "guest-failed",
                    {"reason": machine.failure.key, **machine.failure.params},
                    "error",
                )
            else:
                key, params, level = "guest-stopped", {"status": machine.exit_status or 0}, "info"
            notices.append(
                {
                    "guest": guest,
                    "host": row.host,
                    "key": key,
                    "params": {**params, "guest": row.name},
                    "level": level,
                }
            )
        return notices


def _stage(progress: Progress) -> tuple[Any, ...]:
    """What differs after each event of a migration."""
    return progress.begin_ns, progress.phase, progress.round_count, progress.end_ns


def migration_row(progress: Progress) -> dict[str, Any]:
    """A migration as clients see it: times in ns of the lab's virtual time; rounds as rows of (begin, end, pages, bytes,
    dirtied or None)."""
    plan = progress.plan
    return {
        "guest": progress.guest,
        "source": progress.source,
        "target": plan.host,
        "mode": plan.mode,
        "link_gbit": plan.link_gbit,
        "phase": progress.phase,
        "reason": progress.reason,
        "begin": progress.begin_ns,
        "end": progress.end_ns,
        "due": progress.due_ns,
        "downtime": progress.downtime_ns,
        "pages": progress.pages,
        "bytes": progress.bytes,
        "fetched": progress.fetched,
        "round_count": progress.round_count,
        "rounds": [[r.begin_ns, r.end_ns, r.pages, r.bytes, r.dirtied] for r in progress.rounds[-ROUNDS_TOLD:]],
    }


def host_columns(hosts: Sequence[Host], busy_permille: Sequence[int]) -> dict[str, bytes]:
    """The hosts' figures, one column each. Busy is a share of virtual time since the last drain."""
    return {
        "id": _column("H", (host.id for host in hosts)),
        "time": _column("Q", (host.time for host in hosts)),
        "busy_permille": _column("H", busy_permille),
        "memory_used_mib": _column("I", (host.memory_used_mib for host in hosts)),
        "frames_used": _column("I", (host.frames.used for host in hosts)),
        "frames_saved": _column("I", (host.frames.saved for host in hosts)),
        "pages_swapped": _column("I", (host.pages_swapped for host in hosts)),
    }


def status(machine: Guest) -> dict[str, Any]:
    """One guest as a keyframe shows it."""
    failure = machine.failure
    return {
        "state": machine.state,
        "level": machine.level,
        "pc": machine.pc,
        "instructions": machine.instructions,
        "exits": machine.exits,
        "ran": machine.ran,
        "stolen": machine.stolen_in_all,
        **machine.pages._asdict(),
        "exit_status": machine.exit_status,
        "failure": None if failure is None else {"key": failure.key, "params": failure.params},
    }


def _column(code: str, values: Iterable[int]) -> bytes:
    """Little-endian numbers side by side; `code` as in `struct`."""
    numbers = [*values]
    return struct.pack(f"<{len(numbers)}{code}", *numbers)
