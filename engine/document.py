"""What a lab is made of, as rows: the part of a lab that every client sees, that the server stores and that
undo changes.

An edit is one reversible change of structure, as plain data; carrying it out yields its inverse, which holds
whatever was taken away (a removed guest with its registers, memory and clock), so that undo brings it back
exactly as it was. Bounds of the fields are those of the commands: one definition.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from engine import commands
from engine.hypervisor.costs import Costs
from engine.hypervisor.scheduling.scheduler import DEFAULT_WEIGHT, Share
from engine.hypervisor.stacks import Configuration


class HostRow(Struct, frozen=True):
    id: commands.Identifier
    name: commands.Name
    x: commands.Coordinate
    y: commands.Coordinate
    harts: Annotated[int, Meta(ge=1, le=8)]
    memory_mib: Annotated[int, Meta(ge=16, le=1024)]
    stack: commands.StackId
    technique: commands.TechniqueId | None = None
    switches: commands.Switches = ()
    host_load: Annotated[int, Meta(ge=0, le=90)] = 0
    scheduler: commands.SchedulerId | None = None
    share_pages: bool = False
    overcommit: bool = False

    @property
    def server_memory_mib(self) -> int:
        """What the host may take of the server's memory: its RAM, and a swap device of the same size."""
        return self.memory_mib * (2 if self.overcommit else 1)

    @property
    def configuration(self) -> Configuration:
        """Raises LabError when there is none such."""
        return Configuration.of(self.stack, self.technique, self.switches)


class GuestRow(Struct, frozen=True):
    id: commands.Identifier
    name: commands.Name
    host: commands.Identifier
    image: commands.ImageId
    vcpus: Annotated[int, Meta(ge=1, le=4)]
    memory_mib: Annotated[int, Meta(ge=4, le=512)]
    arguments: Annotated[str, Meta(max_length=512)]
    weight: commands.Weight = DEFAULT_WEIGHT
    cap: commands.Cap = 0
    balloon_mib: commands.BalloonMib = 0

    @property
    def share(self) -> Share:
        return Share(self.weight, self.cap)


ImageKind = Literal["elf", "flat", "image", "assembly", "linux", "snapshot"]


class SnapshotRow(Struct, frozen=True):
    """What a guest that goes on from a snapshot is, beside its memory. `image`: what a reset starts. `technique`: what
    ran it; None: it ran on bare metal."""

    image: commands.ImageId
    vcpus: Annotated[int, Meta(ge=1, le=4)]
    arguments: Annotated[str, Meta(max_length=512)]
    technique: commands.TechniqueId | None = None


class ImageRow(Struct, frozen=True):
    """`id`: a builtin's name, "sha256:" and the digest of the content, or a snapshot's identity. `source`: what
    an assembled image was made from. `arguments` are a guest's boot arguments when nobody gives any. `title`:
    what an image of the server's library is (kind "linux"), in its maker's words. `snapshot`: of a snapshot,
    which is started like an image. `paravirtual`: its kernel is made for hypercalls. `original`: of a builtin, the
    one that it is a changed form of.
    """

    id: commands.ImageId
    name: Annotated[str, Meta(max_length=40)]
    builtin: bool
    size: int
    default_memory_mib: Annotated[int, Meta(ge=4, le=512)]
    kind: ImageKind
    title_key: str | None = None
    source: Annotated[str, Meta(max_length=256 << 10)] | None = None
    arguments: Annotated[str, Meta(max_length=512)] = ""
    title: Annotated[str, Meta(max_length=80)] | None = None
    snapshot: SnapshotRow | None = None
    paravirtual: bool = False
    original: commands.ImageId | None = None


class HostAdd(Struct, tag="host.add", tag_field="edit", frozen=True):
    """`state` None: a new host; otherwise one that comes back with its guests."""

    row: HostRow
    guests: list[GuestRow] = []
    state: dict[str, Any] | None = None


class HostDrop(Struct, tag="host.drop", tag_field="edit", frozen=True):
    host: int


class HostChange(Struct, tag="host.change", tag_field="edit", frozen=True):
    """Another name or place on the canvas; the machine is the same."""

    row: HostRow


class HostRestack(Struct, tag="host.restack", tag_field="edit", frozen=True):
    host: int
    stack: commands.StackId
    technique: commands.TechniqueId | None = None
    switches: commands.Switches = ()


class HostConvert(Struct, tag="host.convert", tag_field="edit", frozen=True):
    """The host of this row, with its guests: carried over, or switched off."""

    row: HostRow
    carry: bool


class HostReplace(Struct, tag="host.replace", tag_field="edit", frozen=True):
    """Put the host of this row, as `World.export_host` gave it with its guests, in the place of the one there is."""

    row: HostRow
    state: dict[str, Any]


class HostOccupy(Struct, tag="host.occupy", tag_field="edit", frozen=True):
    host: int
    percent: Annotated[int, Meta(ge=0, le=90)]


class HostReschedule(Struct, tag="host.reschedule", tag_field="edit", frozen=True):
    host: int
    scheduler: commands.SchedulerId | None


class HostShare(Struct, tag="host.share", tag_field="edit", frozen=True):
    host: int
    share_pages: bool


class HostPromise(Struct, tag="host.promise", tag_field="edit", frozen=True):
    host: int
    overcommit: bool


class GuestAllot(Struct, tag="guest.allot", tag_field="edit", frozen=True):
    guest: int
    weight: commands.Weight
    cap: commands.Cap


class GuestInflate(Struct, tag="guest.inflate", tag_field="edit", frozen=True):
    guest: int
    balloon_mib: commands.BalloonMib


class CostsChange(Struct, tag="costs.change", tag_field="edit", frozen=True):
    costs: Costs


class GuestAdd(Struct, tag="guest.add", tag_field="edit", frozen=True):
    """`state` None: start it from its image; otherwise it goes on where it was."""

    row: GuestRow
    state: dict[str, Any] | None = None


class GuestFork(Struct, tag="guest.fork", tag_field="edit", frozen=True):
    """A clone of the guest `original`."""

    row: GuestRow
    original: int


class GuestDrop(Struct, tag="guest.drop", tag_field="edit", frozen=True):
    guest: int


class GuestRelabel(Struct, tag="guest.relabel", tag_field="edit", frozen=True):
    guest: int
    name: commands.Name


class GuestTransfer(Struct, tag="guest.transfer", tag_field="edit", frozen=True):
    guest: int
    host: int


class GuestDepart(Struct, tag="guest.depart", tag_field="edit", frozen=True):
    """A migration to `host` begins; one that stands still is carried there."""

    guest: int
    host: int
    mode: commands.MigrationMode
    max_rounds: int
    downtime_us: int


class GuestReturn(Struct, tag="guest.return", tag_field="edit", frozen=True):
    """Takes `depart` back: ends the migration, or brings the guest back to `host`, where it began."""

    host: int
    depart: GuestDepart


class LabRelabel(Struct, tag="lab.relabel", tag_field="edit", frozen=True):
    name: commands.Name


Edit = (
    HostAdd | HostDrop | HostChange | HostRestack | HostConvert | HostReplace | HostOccupy | HostReschedule | HostShare
    | HostPromise | CostsChange | GuestAdd | GuestFork | GuestDrop | GuestRelabel | GuestTransfer | GuestDepart
    | GuestReturn | GuestAllot | GuestInflate | LabRelabel
)  # fmt: skip

#: Edits after which the machine is the same as before: they leave the history alone.
COSMETIC = (HostChange, GuestRelabel, LabRelabel)


class Undoable(Struct, frozen=True):
    """An edit that would take a command back (or bring it again), with the command's tag."""

    tag: str
    edit: Edit


class Document(Struct):
    """The rows of one lab and how it is being watched. `images` are the uploaded and assembled ones, without
    their content.
    """

    name: commands.Name
    hosts: dict[int, HostRow] = {}
    guests: dict[int, GuestRow] = {}
    images: dict[str, ImageRow] = {}
    speed: commands.Speed = "10"
    unit: commands.Unit = "trap"
    running: bool = False
    link_gbit: Annotated[int, Meta(ge=1, le=400)] = 10  # between hosts: 10GBASE, IEEE 802.3ae
    costs: Costs = Costs()

    def host_of(self, host: int) -> HostRow:
        row = self.hosts.get(host)
        if row is None:
            raise commands.LabError("no-such-host", f"This lab has no host {host}.", host=host)
        return row

    def guest_of(self, guest: int) -> GuestRow:
        row = self.guests.get(guest)
        if row is None:
            raise commands.LabError("no-such-guest", f"This lab has no guest {guest}.", guest=guest)
        return row

    def guests_on(self, host: int) -> list[GuestRow]:
        return [row for row in self.guests.values() if row.host == host]

    def free_name(self, wanted: str | None, stem: str) -> str:
        """`wanted` if nothing else has that name; without a wish the first free of `stem`-1, `stem`-2 ...

        Hosts and guests share one space of names. Raises LabError "name-taken".
        """
        taken = {row.name for row in self.hosts.values()} | {row.name for row in self.guests.values()}
        if wanted is None:
            number = 1
            while f"{stem}-{number}" in taken:
                number += 1
            return f"{stem}-{number}"
        if wanted in taken:
            raise commands.LabError(
                "name-taken", f"Another host or guest is already named {wanted}.", name=wanted
            )
        return wanted

    def free_place(self, x: float, y: float) -> tuple[float, float]:
        """The place nearest to right of and below (`x`, `y`) where a host's tile overlaps no other."""
        size = len(self.hosts) + 1
        cells = sorted(
            ((i, j) for i in range(size) for j in range(size)), key=lambda cell: (sum(cell), cell[1])
        )
        for i, j in cells:
            place = x + i * TILE[0], y + j * TILE[1]
            if all(
                abs(row.x - place[0]) >= TILE[0] or abs(row.y - place[1]) >= TILE[1]
                for row in self.hosts.values()
            ):
                break
        return place


#: Room that a host's tile takes on the canvas with its margin, in the canvas' own units.
TILE = (510.0, 570.0)


def plain(value: Any) -> Any:
    """Rows, edits and documents as maps and lists; byte strings stay what they are."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))
