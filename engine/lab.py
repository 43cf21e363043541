"""One lab: its hosts, guests, images, history and undo behind one small, pure, synchronous interface.

    apply(command) ─┬─ structure   document + world change by one edit; its inverse goes on the undo stack;
                    │              the history begins anew
                    ├─ input       stamped with the position, takes effect now, kept in the history's log
                    └─ time        run further, or go back by restoring a checkpoint and running again
    query(query)       looks, and changes nothing
    run(budget)        executes steps; the caller owns the wall clock and the pace
    drain(), keyframe()  what a client must hear, ready for the wire
    save(), load()     the whole lab as bytes

No clock, no random number, no file, no socket: a lab is a function of its commands and of how many steps it
ran. The same commands at the same positions give the same trace, bit for bit, however the running was cut
into pieces.

A refused command or query raises LabError and has changed nothing.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from engine import checkpoint, queries, snapshot
from engine.commands import (
    AnyCommand,
    ConsoleInput,
    CostsSet,
    FitsQuery,
    GuestBalloon,
    GuestClone,
    GuestCreate,
    GuestMigrate,
    GuestMigrateCancel,
    GuestMove,
    GuestPower,
    GuestRemove,
    GuestRename,
    GuestSet,
    GuestShare,
    HostCreate,
    HostLoad,
    HostOvercommit,
    HostRemove,
    HostScheduler,
    HostSharing,
    HostStack,
    HostUpdate,
    ImageAdd,
    ImageAssemble,
    LabError,
    LabLink,
    LabPause,
    LabQuery,
    LabRedo,
    LabRename,
    LabReset,
    LabRun,
    LabSeek,
    LabSpeed,
    LabStep,
    LabStepBack,
    LabUndo,
    Problem,
    SnapshotQuery,
    SnapshotTake,
)
from engine.debugger import poke
from engine.document import (
    COSMETIC,
    CostsChange,
    Document,
    Edit,
    GuestAdd,
    GuestAllot,
    GuestDepart,
    GuestDrop,
    GuestFork,
    GuestInflate,
    GuestRelabel,
    GuestReturn,
    GuestRow,
    GuestTransfer,
    HostAdd,
    HostChange,
    HostConvert,
    HostDrop,
    HostOccupy,
    HostPromise,
    HostReschedule,
    HostRestack,
    HostRow,
    HostShare,
    ImageRow,
    LabRelabel,
    SnapshotRow,
    Undoable,
    plain,
)
from engine.history import SLICE_STEPS, History, Progress, held_bytes
from engine.hypervisor.costs import Costs
from engine.hypervisor.guest import IDLE, RUNNING
from engine.hypervisor.migration import PULLING, WITHOUT_POST_COPY, Plan
from engine.hypervisor.stacks import BARE_METAL, STACKS, Configuration, migrated
from engine.hypervisor.vm_guest import TECHNIQUES, VmGuest
from engine.images import Images, digest
from engine.library import Library
from engine.machine.tiers import Tier
from engine.report import Report, host_columns, migration_row, status
from engine.structure import perform
from engine.vocabulary import vocabulary
from engine.world import Ran, World, anew

#: A step that meets no trap gives up after this many steps.
STEP_BUDGET = 1_000_000_000
MAX_UNDO = 64
UNDO_BYTES = 32 << 20
KEYFRAME_RECORDS = 200
MAX_ID = 65_535

_LIVING = (RUNNING, IDLE)


def _unheard(_guest: int, _data: bytes) -> None:
    """Where a scratch world prints to."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one lab may hold, and what executes it. The server's configuration sets them."""

    hosts: int = 16
    guests: int = 64
    memory_mib: int = 8192  # of all hosts together
    images: int = 32  # uploaded and assembled ones
    images_mib: int = 64
    tier: Tier = Tier.JIT


class Lab:
    """See the module. Made by `new`, `demo` or `load`."""

    def __init__(self, document: Document, images: Images, limits: Limits) -> None:
        self.limits = limits
        self._document = document
        self._images = images
        self._next_id = 1
        self._undo: deque[Undoable] = deque()
        self._redo: list[Undoable] = []
        self._report = Report()
        self._moved = False
        self._world = self._blank_world(self._report.hear)
        self._start_world()

    @classmethod
    def new(cls, name: str, limits: Limits = Limits(), library: Library | None = None) -> Lab:
        """An empty, paused lab. `library`: the server's images, shared by its labs."""
        return cls(Document(name), Images(library or Library()), limits)

    @classmethod
    def demo(cls, limits: Limits = Limits(), library: Library | None = None) -> Lab:
        """What a newcomer sees first: one host with a hypervisor, on it the teaching kernel, running."""
        lab = cls.new("demo", limits, library)
        host = lab.apply(HostCreate())["host"]
        lab.apply(GuestCreate(host, "ringos", arguments="run=demo"))
        lab.apply(LabSpeed("10"))
        lab.apply(LabRun())
        lab._undo.clear()
        return lab

    # -- commands --------------------------------------------------------------------------------
    def apply(self, command: AnyCommand, progress: Progress | None = None) -> dict[str, Any]:
        """Carry out a command; the result is what its class in `engine.commands` says.

        `progress` is asked now and then during a long step or seek, with how far it is (0 to 1), and may end
        it by
        returning False; the result then has "reached": False. Raises LabError; nothing has changed then.
        """
        handler = _HANDLERS.get(type(command))
        if handler is not None:
            return handler(self, command)
        match command:
            case LabStep():
                return self._step(command, progress)
            case LabStepBack():
                return self._step_back(command, progress)
            case LabSeek():
                return self._seek(command, progress)
        raise LabError("unknown-command", f"A lab knows no command {type(command).__name__}.")

    @staticmethod
    def structural(command: AnyCommand) -> bool:
        """Must the lab be saved at once after this command?"""
        return isinstance(command, _STRUCTURAL)

    def _host_create(self, command: HostCreate) -> dict[str, Any]:
        if len(self._document.hosts) >= self.limits.hosts:
            raise LabError(
                "lab-limit-hosts",
                f"A lab can have {self.limits.hosts} hosts; remove one first.",
                limit=self.limits.hosts,
            )
        self._check_memory(command.memory_mib)
        name = self._document.free_name(command.name, "host")
        x, y = self._document.free_place(command.x, command.y)
        chosen = Configuration.of(command.stack, command.technique, command.switches)
        row = HostRow(
            self._new_id(), name, x, y, command.harts, command.memory_mib,
            chosen.stack, chosen.technique, chosen.switches,
        )  # fmt: skip
        self._edit(command, HostAdd(row))
        self._next_id = row.id + 1
        return {"host": row.id}

    def _host_update(self, command: HostUpdate) -> dict[str, Any]:
        row = self._document.host_of(command.host)
        changes: dict[str, Any] = {
            key: value
            for key, value in (("name", command.name), ("x", command.x), ("y", command.y))
            if value is not None and value != getattr(row, key)
        }
        if "name" in changes:
            self._document.free_name(changes["name"], "host")
        if changes:
            self._edit(command, HostChange(msgspec.structs.replace(row, **changes)))
        return {}

    def _host_stack(self, command: HostStack) -> dict[str, Any]:
        row = self._document.host_of(command.host)
        chosen = Configuration.of(command.stack, command.technique, command.switches)
        count = len(self._document.guests_on(row.id))
        if row.configuration == chosen:
            return {}
        if not count:
            self._edit(command, HostRestack(row.id, chosen.stack, chosen.technique, chosen.switches))
        elif command.guests is not None:
            self._convert(command, row, chosen)
        else:
            raise LabError(
                "host-has-guests",
                f"{row.name} still has guests; move or remove them before changing its stack.",
                host=row.name,
                count=count,
            )
        return {}

    def _convert(self, command: HostStack, row: HostRow, chosen: Configuration) -> None:
        carry = command.guests == "carry"
        if carry and (row.technique is None) != (chosen.technique is None):
            raise LabError(
                "convert-other-kind",
                "Guests come along only from one hypervisor to another. Switch them off instead.",
                host=row.name,
            )
        after = msgspec.structs.replace(
            row, stack=chosen.stack, technique=chosen.technique, switches=chosen.switches
        )
        self._edit(command, HostConvert(after, carry))

    def _host_load(self, command: HostLoad) -> dict[str, Any]:
        row = self._document.host_of(command.host)
        if STACKS[row.stack].hypervisor_type != 2:
            raise LabError(
                "host-without-system",
                f"{row.name} has no operating system of its own below its hypervisor, so it runs nothing besides.",
                host=row.name,
            )
        if row.host_load != command.percent:
            self._edit(command, HostOccupy(row.id, command.percent))
        return {}

    def _host_scheduler(self, command: HostScheduler) -> dict[str, Any]:
        row = self._document.host_of(command.host)
        if row.technique is None:
            raise LabError(
                "host-without-scheduler",
                f"{row.name} has no hypervisor: its one system has the harts to itself.",
                host=row.name,
            )
        if command.scheduler != row.scheduler:
            self._edit(command, HostReschedule(row.id, command.scheduler))
        return {}

    def _host_sharing(self, command: HostSharing) -> dict[str, Any]:
        row = self._document.host_of(command.host)
        if row.technique is None:
            raise LabError(
                "host-without-sharing",
                f"{row.name} has no hypervisor: nobody is below its one system who could share pages.",
                host=row.name,
            )
        if command.share_pages != row.share_pages:
            self._edit(command, HostShare(row.id, command.share_pages))
        return {}

    def _check_memory(self, need_mib: int) -> None:
        """Refuse what would let the lab's hosts take more of the server's memory than they may."""
        used = sum(row.server_memory_mib for row in self._document.hosts.values())
        if used + need_mib > self.limits.memory_mib:
            raise LabError(
                "lab-limit-memory",
                f"The hosts of a lab can have {self.limits.memory_mib} MiB together; {used} MiB are in use.",
                limit_mib=self.limits.memory_mib,
                used_mib=used,
                need_mib=need_mib,
            )

    def _host_overcommit(self, command: HostOvercommit) -> dict[str, Any]:
        row = self._document.host_of(command.host)
        if command.overcommit == row.overcommit:
            return {}
        if command.overcommit:
            if row.technique is None:
                raise LabError(
                    "host-without-overcommit",
                    f"{row.name} has no hypervisor: nobody is below its one system who could swap its memory out.",
                    host=row.name,
                )
            if TECHNIQUES[row.technique].names_frames:
                raise LabError(
                    "overcommit-names-frames",
                    f"The tables of {row.name}'s guests name frames: none of these can be taken away for a while.",
                    host=row.name,
                )
            self._check_memory(row.memory_mib)
        self._edit(command, HostPromise(row.id, command.overcommit))
        return {}

    def _guest_balloon(self, command: GuestBalloon) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        if self._world.guest(row.id).board.balloon is None:
            raise LabError(
                "guest-without-balloon",
                f"{row.name} has no balloon: nobody gives it its memory page by page, or its tables name frames.",
                guest=row.name,
            )
        if command.balloon_mib >= row.memory_mib:
            raise LabError(
                "balloon-too-large",
                f"{row.name} has {row.memory_mib} MiB, and cannot give all of it away.",
                guest=row.name,
                memory_mib=row.memory_mib,
            )
        if command.balloon_mib != row.balloon_mib:
            self._edit(command, GuestInflate(row.id, command.balloon_mib))
        return {}

    def _guest_share(self, command: GuestShare) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        weight = row.weight if command.weight is None else command.weight
        cap = row.cap if command.cap is None else command.cap
        if (weight, cap) != (row.weight, row.cap):
            self._edit(command, GuestAllot(row.id, weight, cap))
        return {}

    def _host_remove(self, command: HostRemove) -> dict[str, Any]:
        self._document.host_of(command.host)
        self._edit(command, HostDrop(command.host))
        return {}

    def _guest_create(self, command: GuestCreate) -> dict[str, Any]:
        self._check_guest_room()
        host = self._document.host_of(command.host)
        image = self._image_row(command.image)
        name = self._document.free_name(command.name, "vm")
        if image.snapshot is not None:
            self._refuse(self._snapshot_problem(image.snapshot, image.default_memory_mib, host))
            found = snapshot.read(self._images.contents[image.id])
            row = msgspec.structs.replace(found.about.guest, id=self._new_id(), name=name, host=host.id)
            self._edit(command, GuestAdd(row, anew(found.state)))
            self._tell_console(row.id)
        else:
            memory = command.memory_mib or image.default_memory_mib
            arguments = command.arguments if command.arguments is not None else image.arguments
            loaded = self._images.loaded(image.id)
            machine = self._world.hosts[host.id]
            self._refuse(machine.fits(command.vcpus, memory, loaded.start_mode == "M", loaded.paravirtual))
            row = GuestRow(self._new_id(), name, host.id, image.id, command.vcpus, memory, arguments)
            self._edit(command, GuestAdd(row))
        self._next_id = row.id + 1
        return {"guest": row.id}

    def _guest_clone(self, command: GuestClone) -> dict[str, Any]:
        original = self._document.guest_of(command.guest)
        self._check_guest_room()
        host = self._document.host_of(command.host or original.host)
        if host.id == original.host:
            self._refuse(self._world.hosts[host.id].fits(original.vcpus, original.memory_mib, False, None))
        else:
            self._refuse(self._move_problem(original, host.id))
        name = self._document.free_name(command.name, "vm")
        row = msgspec.structs.replace(original, id=self._new_id(), name=name, host=host.id)
        self._edit(command, GuestFork(row, original.id))
        self._tell_console(row.id)
        self._next_id = row.id + 1
        return {"guest": row.id}

    def _tell_console(self, guest: int) -> None:
        """Clients hear what a guest that was not started here had printed before."""
        self._report.hear(guest, self._world.consoles[guest].content())

    def _guest_rename(self, command: GuestRename) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        if command.name != row.name:
            self._document.free_name(command.name, "vm")
            self._edit(command, GuestRelabel(row.id, command.name))
        return {}

    def _guest_move(self, command: GuestMove) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        self._document.host_of(command.host)
        self._refuse(self._move_problem(row, command.host) or self._moving_problem(row))
        self._edit(command, GuestTransfer(row.id, command.host))
        return {}

    # -- migration -------------------------------------------------------------------------------
    def _guest_migrate(self, command: GuestMigrate) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        self._document.host_of(command.host)
        self._refuse(self._move_problem(row, command.host) or self._moving_problem(row))
        machine = self._world.guest(row.id)
        if not isinstance(machine, VmGuest):
            raise LabError(
                "migrate-bare-metal",
                f"Nothing runs below {row.name} that could copy it while it runs; move it instead.",
                guest=row.name,
            )
        if machine.ended:
            raise LabError("migrate-ended", f"{row.name} does not run; move it instead.", guest=row.name)
        technique = self._document.hosts[command.host].technique
        if command.mode == "post-copy" and technique in WITHOUT_POST_COPY:
            raise LabError(
                "migrate-no-post-copy",
                f"Under {technique} every page that a guest's tables name is mapped before it runs, so none can come later; "
                "choose pre-copy.",
                technique=technique,
            )
        self._edit(
            command,
            GuestDepart(row.id, command.host, command.mode, command.max_rounds, command.downtime_us),
        )
        return {}

    def _guest_migrate_cancel(self, command: GuestMigrateCancel) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        self._cancel_migration(row)
        return {}

    def _cancel_migration(self, row: GuestRow) -> None:
        progress = self._world.migrations.get(row.id)
        if progress is None or not progress.active:
            raise LabError("migrate-none", f"{row.name} is not being migrated.", guest=row.name)
        if progress.phase == PULLING:
            raise LabError(
                "migrate-switched",
                f"{row.name} runs on the target already, and what it stored there is nowhere else.",
                guest=row.name,
            )
        self._history.submit(row.id, cancel=True)

    def _moving_problem(self, row: GuestRow) -> Problem | None:
        progress = self._world.migrations.get(row.id)
        if progress is None or not progress.active:
            return None
        target = self._document.hosts[progress.plan.host].name
        return Problem(
            "migrate-already",
            f"{row.name} is being migrated to {target} already.",
            {"guest": row.name, "host": target},
        )

    def _depart(self, edit: GuestDepart) -> Edit:
        """Begin a migration; the guest runs, unless this is a redo and it has ended meanwhile."""
        home = self._document.guest_of(edit.guest).host
        if self._world.guest(edit.guest).ended:
            self._change(GuestTransfer(edit.guest, edit.host))
        else:
            plan = Plan(
                edit.host, edit.mode, edit.max_rounds, edit.downtime_us * 1000, self._document.link_gbit
            )
            self._history.submit(edit.guest, migrate=plan)
        return GuestReturn(home, edit)

    def _return(self, edit: GuestReturn) -> Edit:
        guest = edit.depart.guest
        row = self._document.guest_of(guest)
        if row.host != edit.host:
            self._change(GuestTransfer(guest, edit.host))
        elif self._moving_problem(row) is not None:
            self._cancel_migration(row)
        return edit.depart

    def follow(self) -> bool:
        """Let the document say where guests are now: a migration may have switched, or time may have jumped. Did it
        change?"""
        rows, homes = self._document.guests, self._world.homes
        moved = [row for row in rows.values() if row.host != homes[row.id]]
        for row in moved:
            rows[row.id] = msgspec.structs.replace(row, host=homes[row.id])
        return bool(moved)

    def _lab_link(self, command: LabLink) -> dict[str, Any]:
        self._document.link_gbit = command.gbit
        return {}

    def _guest_remove(self, command: GuestRemove) -> dict[str, Any]:
        self._document.guest_of(command.guest)
        self._edit(command, GuestDrop(command.guest))
        return {}

    def _costs_set(self, command: CostsSet) -> dict[str, Any]:
        costs = Costs(command.profile, command.overrides)
        if costs != self._document.costs:
            self._edit(command, CostsChange(costs))
        return {}

    def _lab_rename(self, command: LabRename) -> dict[str, Any]:
        if command.name != self._document.name:
            self._edit(command, LabRelabel(command.name))
        return {}

    def _image_add(self, command: ImageAdd) -> dict[str, Any]:
        self._check_image_room(len(command.content))
        if snapshot.is_snapshot(command.content):
            return self._snapshot_add(command)
        return self._keep_image(self._images.upload(command.name, command.content))

    def _image_assemble(self, command: ImageAssemble) -> dict[str, Any]:
        self._check_image_room(len(command.source))
        return self._keep_image(self._images.assemble(command.name, command.source))

    # -- snapshots -------------------------------------------------------------------------------
    def _snapshot_take(self, command: SnapshotTake) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        host = self._document.hosts[row.host]
        about = snapshot.About(row, self._image_row(row.image), host.stack, host.technique, host.switches)
        state = anew(self._world.export_guest(row.id))
        image = self._images.contents.get(row.image)
        content = snapshot.write(snapshot.Snapshot(about, state, None if image is None else {"kernel": image}))
        self._check_image_room(len(content))
        return self._keep_snapshot(command.name or f"{row.name[:31]} snapshot", about, content)

    def _snapshot_add(self, command: ImageAdd) -> dict[str, Any]:
        """An uploaded snapshot brings its image along, for when its guest is reset."""
        found = snapshot.read(command.content)
        snapshot.try_out(found, self._images)
        if found.image is not None:
            self._keep_own_image(found.about, found.image)
        name = command.name.removesuffix(snapshot.SUFFIX) or found.about.guest.name
        return self._keep_snapshot(name, found.about, command.content)

    def _keep_own_image(self, about: snapshot.About, files: dict[str, bytes]) -> None:
        """Raises LabError "snapshot-image" when the image is more than a lab can keep for itself."""
        if set(files) != {"kernel"} or digest(files["kernel"]) != about.guest.image:
            raise snapshot.image_missing(about)
        row = self._images.upload(about.image.name, files["kernel"])
        self._keep_image(msgspec.structs.replace(about.image, id=row.id, size=row.size))

    def _keep_snapshot(self, name: str, about: snapshot.About, content: bytes) -> dict[str, Any]:
        identity = snapshot.identity(content)
        guest = about.guest
        of = SnapshotRow(guest.image, guest.vcpus, guest.arguments, about.technique)
        self._images.keep_snapshot(identity, content)
        return self._keep_image(
            ImageRow(identity, name, False, len(content), guest.memory_mib, "snapshot", snapshot=of)
        )

    def _snapshot_problem(self, of: SnapshotRow, memory_mib: int, host: HostRow) -> Problem | None:
        """Why a guest cannot go on from a snapshot on this host."""
        if of.technique != host.technique:
            before, here = of.technique or BARE_METAL, host.technique or BARE_METAL
            return Problem(
                "snapshot-other-technique",
                f"The snapshot is of a guest under {before}; {host.name} has {here}.",
                {"host": host.name, "from": before, "to": here},
            )
        # Its technique has run it before.
        return self._world.hosts[host.id].fits(of.vcpus, memory_mib, machine_mode=False, paravirtual=None)

    def _snapshot_file(self, query: SnapshotQuery) -> dict[str, Any]:
        row = self._image_row(query.image)
        if row.snapshot is None:
            raise LabError("no-such-image", f"This lab has no snapshot {query.image}.", image=query.image)
        return {"name": row.name, "content": self._images.contents[row.id]}

    def _console_input(self, command: ConsoleInput) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        if self._world.guest(row.id).state not in _LIVING:
            raise LabError(
                "guest-not-running",
                f"{row.name} is not running, so nobody reads its console.",
                guest=row.name,
            )
        self._history.submit(row.id, data=command.data)
        return {}

    def _guest_power(self, command: GuestPower) -> dict[str, Any]:
        row = self._document.guest_of(command.guest)
        living = self._world.guest(row.id).state in _LIVING
        if command.action == "reset" or living == (command.action == "off"):
            self._history.submit(row.id, power=command.action)
        return {}

    def _guest_set(self, command: GuestSet) -> dict[str, Any]:
        self._document.guest_of(command.guest)
        changed = poke(self._world, command)
        if changed:
            self._history.rebase()
        return {"changed": changed}

    # -- a debugger --------------------------------------------------------------------------------
    @property
    def world(self) -> World:
        """What a debugger looks at and runs."""
        return self._world

    @property
    def history(self) -> History:
        """Where a debugger goes back."""
        return self._history

    def jumped(self) -> None:
        """Somebody went to another moment past `apply`: what was to be told of this one is void."""
        self.follow()
        self._report.forget(self._document, self._world)

    def _lab_run(self, _: LabRun) -> dict[str, Any]:
        self._document.running = True
        return {}

    def _lab_pause(self, _: LabPause) -> dict[str, Any]:
        self._document.running = False
        return {}

    def _lab_speed(self, command: LabSpeed) -> dict[str, Any]:
        self._document.speed, self._document.unit = command.speed, command.unit
        return {}

    def _lab_reset(self, _: LabReset) -> dict[str, Any]:
        self._start_world()
        return {}

    def _lab_undo(self, _: LabUndo) -> dict[str, Any]:
        while self._undo and self._is_void(self._undo[-1]):
            self._undo.pop()
        if not self._undo:
            raise LabError("nothing-to-undo", "There is nothing to undo.")
        entry = self._undo[-1]
        inverse = self._perform(entry.edit)
        self._undo.pop()
        self._redo.append(Undoable(entry.tag, inverse))
        return {}

    def _is_void(self, entry: Undoable) -> bool:
        """Would it take back a migration that has come to nothing by itself?"""
        edit = entry.edit
        if not isinstance(edit, GuestReturn):
            return False
        row = self._document.guests.get(edit.depart.guest)
        return row is not None and row.host == edit.host and self._moving_problem(row) is None

    def _lab_redo(self, _: LabRedo) -> dict[str, Any]:
        if not self._redo:
            raise LabError("nothing-to-redo", "There is nothing to redo.")
        entry = self._redo[-1]
        inverse = self._perform(entry.edit)
        self._redo.pop()
        self._undo.append(Undoable(entry.tag, inverse))
        return {}

    # -- time --------------------------------------------------------------------------------------
    @property
    def position(self) -> int:
        """Steps executed so far; going back in time takes it back."""
        return self._world.position

    def run(self, budget_steps: int, stop_after_traps: int | None = None) -> Ran:
        """Execute up to `budget_steps`; fewer when everything is idle or so many records were written."""
        ran = self._history.run(budget_steps, stop_after_traps)
        self._moved = self.follow() or self._moved
        return ran

    def take_moved(self) -> bool:
        """Has a guest switched hosts by itself since the last call? The document is another one then."""
        moved, self._moved = self._moved, False
        return moved

    def _step(self, command: LabStep, progress: Progress | None) -> dict[str, Any]:
        if command.guest is not None:
            self._document.guest_of(command.guest)
        self._document.running = False
        count = self._counter(command)
        before, left = count(), STEP_BUDGET
        by_trap = command.unit == "trap"
        while left and count() == before:
            if progress is not None and left % SLICE_STEPS == 0 and not progress(1 - left / STEP_BUDGET):
                break
            ran = self._history.run(min(left, SLICE_STEPS) if by_trap else 1, 1 if by_trap else None)
            if not ran.steps:
                break
            left -= ran.steps
        self.follow()
        return {"position": self._world.position, "reached": count() != before}

    def _counter(self, command: LabStep) -> Callable[[], int]:
        """What grows when the step has been made."""
        world, guest = self._world, command.guest
        if command.unit == "trap":
            return (lambda: world.trace.written) if guest is None else (lambda: world.trace.total(guest))
        return (lambda: world.position) if guest is None else (lambda: world.guest(guest).instructions)

    def _step_back(self, command: LabStepBack, progress: Progress | None) -> dict[str, Any]:
        if command.guest is not None:
            self._document.guest_of(command.guest)
        self._document.running = False
        now, history = self._world.position, self._history
        if command.unit == "trap":
            target = self._world.trace.last_position(command.guest, now)
        elif command.guest is None:
            target = now - 1
        else:
            target = history.before_instruction(command.guest, self._blank_world(), progress)
        if target is None or target < history.begin:
            return {"position": now, "reached": False}
        return self._travel(target, progress)

    def _seek(self, command: LabSeek, progress: Progress | None) -> dict[str, Any]:
        begin, end = self._history.begin, self._history.end
        if not begin <= command.position <= end:
            raise LabError(
                "seek-outside-history",
                f"Position {command.position} is outside of the history, which goes from {begin} to {end}.",
                position=command.position,
                begin=begin,
                end=end,
            )
        self._document.running = False
        return self._travel(command.position, progress)

    def _travel(self, position: int, progress: Progress | None) -> dict[str, Any]:
        reached = self._history.seek(position, progress)
        self.follow()
        self._report.forget(self._document, self._world)
        return {"position": self._world.position, "reached": reached}

    # -- queries -----------------------------------------------------------------------------------
    def query(self, query: LabQuery, progress: Progress | None = None) -> dict[str, Any]:
        """The answer, as its class in `engine.commands` says. Raises LabError."""
        if isinstance(query, FitsQuery):
            return self._fits(query)
        if isinstance(query, SnapshotQuery):
            return self._snapshot_file(query)
        return queries.answer(query, self._document, self._history, self._images, self._blank_world, progress)

    def _fits(self, query: FitsQuery) -> dict[str, Any]:
        host = self._document.host_of(query.host)
        machine = self._world.hosts[host.id]
        problem: Problem | None
        if query.guest is not None:
            row = self._document.guest_of(query.guest)
            need, problem = row.memory_mib, self._move_problem(row, host.id) or self._moving_problem(row)
        else:
            image = self._image_row(query.image) if query.image is not None else None
            need = query.memory_mib or (image.default_memory_mib if image else 0)
            if image is not None and image.snapshot is not None:
                problem = self._snapshot_problem(image.snapshot, need, host)
            else:
                loaded = None if image is None else self._images.loaded(image.id)
                machine_mode = loaded is not None and loaded.start_mode == "M"
                problem = machine.fits(1, need, machine_mode, None if loaded is None else loaded.paravirtual)
            if len(self._document.guests) >= self.limits.guests:
                limit = self.limits.guests
                problem = Problem("lab-limit-guests", f"A lab can have {limit} guests.", {"limit": limit})
        return {
            "fits": problem is None,
            "error": None if problem is None else msgspec.to_builtins(problem),
            "free_mib": machine.free_mib,
            "need_mib": need,
        }

    def _move_problem(self, row: GuestRow, host: int) -> Problem | None:
        source, target = self._document.hosts[row.host], self._document.hosts[host]
        if source.id == target.id:
            return Problem(
                "move-same-host",
                f"{row.name} is already on {target.name}.",
                {"guest": row.name, "host": target.name},
            )
        if self._world.hosts[source.id].bare_metal != self._world.hosts[host].bare_metal:
            return Problem(
                "move-other-stack",
                f"{row.name} runs on the stack {source.stack}; {target.name} has {target.stack}.",
                {"guest": row.name, "host": target.name, "from": source.stack, "to": target.stack},
            )
        guest = self._world.guest(row.id)
        return self._world.hosts[host].fits(row.vcpus, row.memory_mib, guest.machine_mode, guest.image.paravirtual)

    # -- what clients hear -------------------------------------------------------------------------
    def document(self) -> dict[str, Any]:
        """What the server stores and every client sees."""
        document = self._document
        return {
            "name": document.name,
            "hosts": [
                {**msgspec.to_builtins(row), "switches": list(row.switches)} for row in document.hosts.values()
            ],
            "guests": [msgspec.to_builtins(row) for row in document.guests.values()],
            "images": [
                msgspec.to_builtins(row) for row in (*self._images.common(), *document.images.values())
            ],
            "speed": document.speed,
            "unit": document.unit,
            "running": document.running,
            "link_gbit": document.link_gbit,
            "costs": msgspec.to_builtins(document.costs),
            "undo": next((entry.tag for entry in reversed(self._undo) if not self._is_void(entry)), None),
            "redo": self._redo[-1].tag if self._redo else None,
        }

    def drain(self) -> dict[str, Any]:
        """What happened since the last drain (or the last jump in time): the engine's part of a tick."""
        return self._report.drain(self._document, self._world)

    def keyframe(self) -> dict[str, Any]:
        """Everything a client needs that knows nothing yet. It includes what the next drain will tell, so
        drain first.
        """
        world = self._world
        used = {row.image for row in self._document.guests.values()}
        hosts = list(world.hosts.values())
        return {
            "schema": vocabulary(),
            "document": self.document(),
            "position": world.position,
            "time": world.time,
            "running": self._document.running,
            "history": {"begin": self._history.begin, "end": self._history.end},
            "status": {str(guest): status(world.guest(guest)) for guest in self._document.guests},
            "hosts": host_columns(hosts, [0] * len(hosts)),
            "totals": world.trace.totals(),
            "console": [[guest, world.consoles[guest].content()] for guest in self._document.guests],
            "records": world.trace.latest(KEYFRAME_RECORDS).tobytes(),
            "migrations": [migration_row(progress) for progress in world.migrations.values()],
            "symbols": {image: len(self._images.loaded(image).symbols) for image in sorted(used)},
        }

    def trace_hash(self) -> str:
        """A digest of every record written so far."""
        return self._world.trace.hash()

    # -- structure -----------------------------------------------------------------------------------
    def _edit(self, command: AnyCommand, edit: Edit) -> None:
        inverse = self._perform(edit)
        self._undo.append(Undoable(str(command.__struct_config__.tag), inverse))
        self._redo.clear()
        while len(self._undo) > 1 and (len(self._undo) > MAX_UNDO or self._undo_bytes() > UNDO_BYTES):
            self._undo.popleft()

    def _perform(self, edit: Edit) -> Edit:
        """Change document and world by one edit; returns the edit that takes it back."""
        match edit:
            case GuestDepart():
                return self._depart(edit)
            case GuestReturn():
                return self._return(edit)
        return self._change(edit)

    def _change(self, edit: Edit) -> Edit:
        inverse = perform(edit, self._document, self._world)
        if not isinstance(edit, COSMETIC):
            self.follow()
            self._history.rebase()
        return inverse

    def _undo_bytes(self) -> int:
        """What the undo stack holds: of everything that it takes away or would bring back, each page once."""
        return held_bytes([msgspec.structs.astuple(entry.edit) for entry in self._undo])

    def _new_id(self) -> int:
        if self._next_id > MAX_ID:
            raise LabError(
                "lab-limit-ids",
                f"This lab has used up its {MAX_ID} identifiers; go on in a new lab.",
                limit=MAX_ID,
            )
        return self._next_id

    def _image_row(self, image: str) -> ImageRow:
        row = self._images.common_row(image) or self._document.images.get(image)
        if row is None:
            raise LabError("no-such-image", f"This lab has no image {image}.", image=image)
        return row

    def _check_guest_room(self) -> None:
        if len(self._document.guests) >= self.limits.guests:
            raise LabError(
                "lab-limit-guests",
                f"A lab can have {self.limits.guests} guests; remove one first.",
                limit=self.limits.guests,
            )

    def _check_image_room(self, size: int) -> None:
        limits = self.limits
        if (
            len(self._document.images) >= limits.images
            or self._images.total_bytes + size > limits.images_mib << 20
        ):
            raise LabError(
                "lab-limit-images",
                f"A lab can keep {limits.images} images of {limits.images_mib} MiB together.",
                limit=limits.images,
                limit_mib=limits.images_mib,
            )

    def _keep_image(self, row: ImageRow) -> dict[str, Any]:
        self._document.images[row.id] = row
        return {"image": row.id}

    @staticmethod
    def _refuse(problem: Problem | None) -> None:
        if problem is not None:
            raise LabError(problem.key, problem.message, **problem.params)

    def _start_world(self) -> None:
        """Every guest is about to start from its image; the hosts' clocks are at 0. Positions go on."""
        position = self._world.position
        self._world = self._blank_world(self._report.hear)
        self._world.position = position
        self._history = History(self._world)
        self._report.forget(self._document, self._world)

    def _blank_world(self, output: Callable[[int, bytes], None] = _unheard) -> World:
        document = self._document
        return World.build(
            [*document.hosts.values()], [*document.guests.values()], self._images.loaded, output, self.limits.tier,
            document.costs,
        )  # fmt: skip

    # -- state -------------------------------------------------------------------------------------
    def save(self) -> bytes:
        """The complete lab; `load` goes on with the same trace. Of the history: its base, its log and its
        near past.
        """
        return checkpoint.pack(
            {
                "document": plain(self._document),
                "images": self._images.contents,
                "next_id": self._next_id,
                "undo": [plain(entry) for entry in self._undo],
                "redo": [plain(entry) for entry in self._redo],
                "history": self._history.save(),
            }
        )

    @classmethod
    def load(
        cls, content: bytes, limits: Limits = Limits(), library: Library | None = None, afresh: bool = False
    ) -> Lab:
        """The lab of `save`. afresh: its structure alone, also of an older version's; every guest is about to start, and
        nothing can be undone. Raises LabError "checkpoint-damaged", "checkpoint-newer", "checkpoint-older" or
        "library-lacks", and nothing else."""
        root = checkpoint.unpack(content, older=afresh)
        try:
            if afresh:
                root |= {"undo": [], "redo": [], "history": {}}
            for part in ("document", "undo", "redo"):
                root[part] = migrated(root[part])
            saved = msgspec.convert(root, _Saved)
            images = Images(library or Library(), saved.images)
            _check(saved, images)
            lab = cls(Document(saved.document.name), images, limits)
            lab._document = saved.document
            lab._next_id = saved.next_id
            lab._undo = deque(saved.undo)
            lab._redo = saved.redo
            if afresh:
                lab._start_world()
            else:
                lab._world = lab._blank_world(lab._report.hear)
                lab._history = History.load(saved.history, lab._world)
                lab._report.forget(lab._document, lab._world)
        except LabError as error:
            if error.problem.key.startswith("library-"):
                raise
            raise checkpoint.damaged(str(error)) from error
        except _DAMAGE as error:
            raise checkpoint.damaged(f"{type(error).__name__} {error}") from error
        return lab


class _Saved(msgspec.Struct):
    document: Document
    images: dict[str, bytes]
    next_id: int
    undo: list[Undoable]
    redo: list[Undoable]
    history: dict[str, Any]


#: What meeting nonsense in a saved state can lead to.
_DAMAGE = (
    msgspec.MsgspecError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    LookupError,
    MemoryError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
)


def _check(saved: _Saved, images: Images) -> None:
    """The references inside a saved document, which its types cannot express. Raises ValueError, and LabError
    "library-lacks" when a guest needs an image that this server does not have."""
    document = saved.document
    filed = [*document.hosts, *document.guests, *document.images]
    named = [host.id for host in document.hosts.values()] + [guest.id for guest in document.guests.values()]
    if filed != [*named, *(image.id for image in document.images.values())]:
        raise ValueError("its rows are filed under other ids")
    for host in document.hosts.values():
        if host.configuration != Configuration(host.stack, host.technique, host.switches):
            raise ValueError(f"the host {host.id} is configured as none can be")
    for guest in document.guests.values():
        if guest.host not in document.hosts:
            raise ValueError(f"the guest {guest.id} is on no host")
        if images.common_row(guest.image) is None and guest.image not in document.images:
            raise LabError(
                "library-lacks",
                f"The guest {guest.name} of this lab needs an image that this server does not have "
                f"({guest.image[:19]}…). Add it again, with ringside images add.",
                guest=guest.name,
                image=guest.image,
            )
    if set(document.images) != set(saved.images):
        raise ValueError("images and their contents do not match")
    for image, content in saved.images.items():
        held = snapshot.identity(content) if snapshot.is_snapshot(content) else digest(content)
        if held != image or (document.images[image].snapshot is None) == snapshot.is_snapshot(content):
            raise ValueError(f"the content of {image} is another one")
    if max([0, *document.hosts, *document.guests]) >= saved.next_id:
        raise ValueError("an identifier was given twice")


_HANDLERS: dict[type, Callable[[Lab, Any], dict[str, Any]]] = {
    HostCreate: Lab._host_create,
    HostUpdate: Lab._host_update,
    HostStack: Lab._host_stack,
    HostLoad: Lab._host_load,
    HostScheduler: Lab._host_scheduler,
    HostSharing: Lab._host_sharing,
    HostOvercommit: Lab._host_overcommit,
    HostRemove: Lab._host_remove,
    GuestCreate: Lab._guest_create,
    GuestClone: Lab._guest_clone,
    GuestRename: Lab._guest_rename,
    GuestMove: Lab._guest_move,
    GuestShare: Lab._guest_share,
    GuestBalloon: Lab._guest_balloon,
    GuestMigrate: Lab._guest_migrate,
    GuestMigrateCancel: Lab._guest_migrate_cancel,
    LabLink: Lab._lab_link,
    GuestRemove: Lab._guest_remove,
    LabRename: Lab._lab_rename,
    CostsSet: Lab._costs_set,
    ImageAdd: Lab._image_add,
    ImageAssemble: Lab._image_assemble,
    SnapshotTake: Lab._snapshot_take,
    ConsoleInput: Lab._console_input,
    GuestPower: Lab._guest_power,
    GuestSet: Lab._guest_set,
    LabRun: Lab._lab_run,
    LabPause: Lab._lab_pause,
    LabSpeed: Lab._lab_speed,
    LabReset: Lab._lab_reset,
    LabUndo: Lab._lab_undo,
    LabRedo: Lab._lab_redo,
}

_STRUCTURAL = (
    HostCreate, HostUpdate, HostStack, HostLoad, HostScheduler, HostSharing, HostOvercommit, HostRemove, GuestCreate,
    GuestShare, GuestBalloon, GuestRename, GuestMove, GuestMigrate, GuestClone, GuestRemove, LabRename, LabLink,
    CostsSet, ImageAdd, ImageAssemble, SnapshotTake, LabReset, LabUndo, LabRedo,
)  # fmt: skip
