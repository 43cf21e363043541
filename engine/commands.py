"""Everything that can be asked of a lab: commands change it, queries only look. One definition for page, web
process and engine.

On the wire a command or query is a map with its tag under "type" (`{"type": "guest.create", "host": 1,
...}`); msgspec checks every field and bound before the engine sees it. Every command that the lab accepts is
stamped with the lab's position and kept, so that a lab is its last checkpoint and the commands since.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Identifier = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[\w][\w .\-]*$")]
Coordinate = Annotated[float, Meta(ge=-100_000, le=100_000)]
Address = Annotated[int, Meta(ge=0)]  # MessagePack has no integer above 2**64 - 1
ImageId = Annotated[str, Meta(min_length=1, max_length=80)]
#: See engine.hypervisor.stacks for what goes together.
StackId = Literal["bare-metal", "xen", "kvm", "vmware", "parallels", "cloud"]
TechniqueId = Literal["trap-and-emulate", "binary-translation", "hardware-assist", "paravirtual"]
SchedulerId = Literal["credit", "fair-share"]
SwitchId = Annotated[str, Meta(min_length=1, max_length=40)]
#: Crossings from one level to another whose cost is modelled, and tables of costs; see engine.hypervisor.costs.
CrossingId = Literal[
    "exit", "entry", "to-user-space", "from-user-space", "to-driver-domain", "from-driver-domain", "to-host-os",
    "from-host-os",
]  # fmt: skip
ProfileId = Literal["adams-agesen-2006", "dall-arm-2016", "dall-x86-2016"]
MAX_CYCLES = 10_000_000
Cycles = Annotated[int, Meta(ge=0, le=MAX_CYCLES)]
Weight = Annotated[int, Meta(ge=1, le=65535)]
Cap = Annotated[int, Meta(ge=0, le=800)]
BalloonMib = Annotated[int, Meta(ge=0, le=511)]
Switches = Annotated[tuple[SwitchId, ...], Meta(max_length=16)]
#: See engine.hypervisor.migration.
MigrationMode = Literal["pre-copy", "post-copy", "stop-and-copy"]
Unit = Literal["trap", "instruction"]
#: traps (or instructions) a second, "real": virtual time follows the wall clock, "max": as fast as it goes
Speed = Literal["1", "2", "5", "10", "25", "real", "max"]


class Command(Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    """Base of all commands."""


# -- structure: these can be undone ----------------------------------------------------------------
class HostCreate(Command, tag="host.create", frozen=True):
    """Result: {"host": id}. technique None: the stack's own; stack None: as `Configuration.of` says."""

    x: Coordinate = 0.0
    y: Coordinate = 0.0
    name: Name | None = None
    harts: Annotated[int, Meta(ge=1, le=8)] = 1
    memory_mib: Annotated[int, Meta(ge=16, le=1024)] = 512
    stack: StackId | None = None
    technique: TechniqueId | None = None
    switches: Switches = ()


class HostUpdate(Command, tag="host.update", frozen=True):
    """Rename or move a host on the canvas; None leaves a field as it is."""

    host: Identifier
    name: Name | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None


class HostStack(Command, tag="host.stack", frozen=True):
    """Give a host another stack, technique (None: the stack's own) and switches. Its guests come along, each going on
    where it was, or are switched off, as `guests` says; None: there must be none."""

    host: Identifier
    stack: StackId
    technique: TechniqueId | None = None
    switches: Switches = ()
    guests: Literal["carry", "stop"] | None = None


class HostLoad(Command, tag="host.load", frozen=True):
    """How much of each hart the host's own processes take, where the host has an operating system (type 2)."""

    host: Identifier
    percent: Annotated[int, Meta(ge=0, le=90)]


class HostScheduler(Command, tag="host.scheduler", frozen=True):
    """Who of the vCPUs gets the harts is decided by this scheduler from now on; None: by the stack's own."""

    host: Identifier
    scheduler: SchedulerId | None


class HostSharing(Command, tag="host.sharing", frozen=True):
    """Look for equal pages of the host's guests from now on, which then share a frame until somebody stores there; or no
    longer."""

    host: Identifier
    share_pages: bool


class GuestBalloon(Command, tag="guest.balloon", frozen=True):
    """Let a VM's balloon hold so much of its memory. It takes a driver in the guest that does so."""

    guest: Identifier
    balloon_mib: BalloonMib


class HostOvercommit(Command, tag="host.overcommit", frozen=True):
    """Let the host's guests be promised as much memory again as it has RAM, or no longer. What they then need beyond it is
    on a swap device."""

    host: Identifier
    overcommit: bool


class HostRemove(Command, tag="host.remove", frozen=True):
    """Remove a host with its guests."""

    host: Identifier


class GuestCreate(Command, tag="guest.create", frozen=True):
    """Create a guest and start it. Result: {"guest": id}. One that goes on from a snapshot has the snapshot's
    vCPUs, memory and arguments."""

    host: Identifier
    image: ImageId
    name: Name | None = None
    vcpus: Annotated[int, Meta(ge=1, le=4)] = 1
    memory_mib: Annotated[int, Meta(ge=4, le=512)] | None = None  # None: the image's default
    arguments: Annotated[str, Meta(max_length=512)] | None = None  # bootargs; None: the image's default


class GuestRename(Command, tag="guest.rename", frozen=True):
    guest: Identifier
    name: Name


class GuestMove(Command, tag="guest.move", frozen=True):
    """Carry a guest, running or not, to another host of the lab, both with a hypervisor or both without one; no time
    passes, and it goes on where it was."""

    guest: Identifier
    host: Identifier


class GuestMigrate(Command, tag="guest.migrate", frozen=True):
    """Begin to move a running VM over the lab's link, as engine.hypervisor.migration says; `max_rounds` and
    `downtime_us` bound pre-copy. Xen's defaults are 29 rounds and 50 pages left (xc_domain_save), which take 10 Gbit/s
    some 200 µs."""

    guest: Identifier
    host: Identifier
    mode: MigrationMode = "pre-copy"
    max_rounds: Annotated[int, Meta(ge=1, le=1000)] = 29
    downtime_us: Annotated[int, Meta(ge=0, le=10_000_000)] = 200


class GuestMigrateCancel(Command, tag="guest.migrate.cancel", frozen=True):
    """End a migration before the switch; the guest goes on where it is."""

    guest: Identifier


class LabLink(Command, tag="lab.link", frozen=True):
    """How fast the link between hosts is for migrations that begin from now on."""

    gbit: Annotated[int, Meta(ge=1, le=400)]


class GuestClone(Command, tag="guest.clone", frozen=True):
    """A second guest that goes on from where this one is. Result: {"guest": id}. On the same hypervisor both
    share their memory until one of them stores to it; another host (None: the same) gets a copy."""

    guest: Identifier
    host: Identifier | None = None
    name: Name | None = None


class GuestShare(Command, tag="guest.share", frozen=True):
    """A guest's part of its host's harts from now on: `weight` against the others', at most `cap` percent of one hart (0:
    no cap). None leaves it as it is."""

    guest: Identifier
    weight: Weight | None = None
    cap: Cap | None = None


class GuestRemove(Command, tag="guest.remove", frozen=True):
    guest: Identifier


class LabRename(Command, tag="lab.rename", frozen=True):
    name: Name


class CostsSet(Command, tag="costs.set", frozen=True):
    """What switches cost from now on: a profile, and cycles that replace its own."""

    profile: ProfileId
    overrides: dict[CrossingId, Cycles] = {}


# -- images ----------------------------------------------------------------------------------------
class ImageAdd(Command, tag="image.add", frozen=True):
    """Keep an uploaded ELF, RISC-V Image, flat binary or snapshot. Result: {"image": id}. Rejected with the
    reason if it cannot be loaded."""

    name: Name
    content: Annotated[bytes, Meta(min_length=1, max_length=8 << 20)]


class ImageAssemble(Command, tag="image.assemble", frozen=True):
    """Assemble a program. Result: {"image": id}. Errors carry "line" and "column" (both from 1)."""

    name: Name
    source: Annotated[str, Meta(max_length=256 << 10)]


class SnapshotTake(Command, tag="snapshot.take", frozen=True):
    """Keep a guest's state beside the images, to start others from. Result: {"image": id}."""

    guest: Identifier
    name: Name | None = None  # None: the guest's, and "snapshot"


# -- what goes into a guest ------------------------------------------------------------------------
class ConsoleInput(Command, tag="console.input", frozen=True):
    guest: Identifier
    data: Annotated[bytes, Meta(min_length=1, max_length=4096)]


class GuestPower(Command, tag="guest.power", frozen=True):
    """on: start a stopped guest; off: stop at once; reset: start again from its image."""

    guest: Identifier
    action: Literal["on", "off", "reset"]


class GuestSet(Command, tag="guest.set", frozen=True):
    """A debugger's change: x0 to x31 or pc (`number` 32), f0 to f31, a CSR, the privilege, or memory from virtual
    address `number` on, whatever its pages permit. What the guest did before cannot lead there, so a new history
    begins. Result: {"changed": bool}; False where nothing can be changed."""

    guest: Identifier
    place: Literal["x", "f", "csr", "privilege", "memory"]
    number: Address = 0
    value: Address = 0
    data: Annotated[bytes, Meta(max_length=16 << 10)] = b""
    vcpu: Annotated[int, Meta(ge=0, le=7)] = 0


# -- time ------------------------------------------------------------------------------------------
class LabRun(Command, tag="lab.run", frozen=True):
    pass


class LabPause(Command, tag="lab.pause", frozen=True):
    pass


class LabSpeed(Command, tag="lab.speed", frozen=True):
    speed: Speed
    unit: Unit = "trap"


class LabStep(Command, tag="lab.step", frozen=True):
    """Pause, then go on to the next trap (of `guest`, or of any) or by one instruction. Result: {"position",
    "reached": bool}."""

    unit: Unit = "trap"
    guest: Identifier | None = None


class LabStepBack(Command, tag="lab.step_back", frozen=True):
    """Pause, then go back to just before the latest trap (of `guest`, or of any) or by one instruction."""

    unit: Unit = "trap"
    guest: Identifier | None = None


class LabSeek(Command, tag="lab.seek", frozen=True):
    """Pause and go to a position between the history's begin and its end."""

    position: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class LabReset(Command, tag="lab.reset", frozen=True):
    """Every guest starts again from its image; hosts' clocks return to 0."""


class LabUndo(Command, tag="lab.undo", frozen=True):
    pass


class LabRedo(Command, tag="lab.redo", frozen=True):
    pass


AnyCommand = (
    HostCreate | HostUpdate | HostStack | HostLoad | HostScheduler | HostSharing | HostOvercommit
    | HostRemove
    | GuestCreate | GuestRename | GuestMove | GuestMigrate | GuestMigrateCancel | GuestClone | GuestShare | GuestBalloon
    | GuestRemove
    | LabRename | CostsSet
    | ImageAdd | ImageAssemble | SnapshotTake | ConsoleInput | GuestPower | GuestSet
    | LabRun | LabPause | LabSpeed | LabStep | LabStepBack | LabSeek | LabLink | LabReset | LabUndo | LabRedo
)  # fmt: skip


class Query(Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    """Base of all queries."""


class TraceQuery(Query, tag="trace", frozen=True):
    """Records of one guest (or all) with sequence/time before a bound, newest last.

    Result: {"records": bytes (RECORD layout), "first": oldest sequence that is held or can be derived again,
    "total": {guest: last sequence}}.
    """

    guest: Identifier | None = None
    before: Annotated[int, Meta(ge=0)] | None = None  # sequence, exclusive; needs guest
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200


class StretchQuery(Query, tag="stretch", frozen=True):
    """Every record written at positions from `begin` to before `end`, of one guest or of all, in the order in which
    they were written; derived by replay. Result: {"records": bytes (RECORD layout), "begin", "end": as far as there
    is history}."""

    begin: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    end: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    guest: Identifier | None = None


class TraceDetailQuery(Query, tag="trace.detail", frozen=True):
    """One record opened: registers before and after (derived by replay), instruction text, source line,
    symbol.

    Result: {"instruction": str, "symbol": str, "source": {"file", "line", "text"} | None,
             "before": {...registers}, "after": {...registers}, "changed": [names], "crossings":
             [{"from","to","cycles","source","note","verified"}]}, as `CostsQuery`; note "overridden" besides.
    registers: {"pc": int, "x": [32 ints], "level": int, "csrs": {name: int}}
    """

    guest: Identifier
    sequence: Annotated[int, Meta(ge=1)]


class RegistersQuery(Query, tag="registers", frozen=True):
    """Result: {"pc","x","level","csrs": {name: value}, "fields": {csr: [[field, value], ...]}, "written": [x
    indices], "read": [x indices], "instruction": str}."""

    guest: Identifier
    vcpu: Annotated[int, Meta(ge=0, le=7)] = 0


class MemoryQuery(Query, tag="memory", frozen=True):
    """`length` bytes at guest virtual (or physical) `address`. Result: {"address", "bytes", "mapped": [bool
    per page]}."""

    guest: Identifier
    address: Address
    length: Annotated[int, Meta(ge=1, le=4096)] = 256
    physical: bool = False
    vcpu: Annotated[int, Meta(ge=0, le=7)] = 0


class WalkQuery(Query, tag="walk", frozen=True):
    """How a guest virtual address becomes a host physical one, each memory reference counted.

    Result: {"gva", "guest": [step], "gpa": int|None, "shadow": [step], "second": [[step]], "hpa": int|None,
    "references": {"guest": n, "shadow": n, "second": n}, "fault": str|None, "walks": {"count": n, "references": n},
    "tlb": {"load": bool, "store": bool, "fetch": bool} | None}.
    walks: how often the vCPU's TLB had no answer since the guest began or was last put back in time, and what that cost
    in memory references: of this very run, not part of the trace. tlb: would such an access to the address hit it now; None:
    the vCPU is on no hart. shadow: the hart's own walk where the
    VMM shadows the guest's tables. second: under hardware assist, the second stage's steps for each of the guest's
    and, last, for where they lead. step: {"level", "table" (physical address), "index", "address", "pte",
             "flags": "rwxuad...", "leaf": bool}.
    """

    guest: Identifier
    address: Address
    vcpu: Annotated[int, Meta(ge=0, le=7)] = 0


class CodeQuery(Query, tag="code", frozen=True):
    """Disassembly and source around pc (or `address`).

    Result: {"pc", "rows": [{"address", "encoding", "text", "symbol": str|None, "file": str|None, "line":
    int|None}],
             "source": {"file", "line", "first": line number of the first text line, "lines": [str]} | None}.
    """

    guest: Identifier
    address: Address | None = None
    rows: Annotated[int, Meta(ge=1, le=200)] = 32
    vcpu: Annotated[int, Meta(ge=0, le=7)] = 0


class TranslationQuery(Query, tag="translation", frozen=True):
    """Guest code beside its translation, under binary translation: the block with the instruction at pc (or `address`)
    or, where the vCPU runs user code, with the trap handler that its kernel goes on in.

    Result: {"pc", "counts": {"blocks", "instructions", "chained", "call_outs", "faults", "retranslated", "dropped",
    "flushes", "bytes"} since the VM was switched on, None where nothing is translated, "block": {"pc", "end", "rows":
    [{"address", "text", "symbol": str|None, "how", "host": [{"address", "text"}]}], "stubs": [{"address", "text"}]:
    host code behind it} | None}. how: copied, rewritten (it depends on where it is), inline (a sensitive instruction
    that needs no VMM) or call_out.
    """

    guest: Identifier
    address: Address | None = None
    vcpu: Annotated[int, Meta(ge=0, le=7)] = 0


class SymbolsQuery(Query, tag="symbols", frozen=True):
    """Names of guest virtual addresses, and the address of a name.

    Result: {"places": ["trap_handler+0x3c" | None for each of `addresses`], "address": int|None}.
    """

    guest: Identifier
    addresses: Annotated[list[Address], Meta(max_length=200)] = []
    name: Annotated[str, Meta(max_length=256)] | None = None


class TimelineQuery(Query, tag="timeline", frozen=True):
    """Result: {"begin", "end", "position", "marks": [[position, time, guest, kind, disposition, sequence],
    ...] (at most 2000)}."""

    guest: Identifier | None = None


class FitsQuery(Query, tag="fits", frozen=True):
    """Would this drop be accepted? Asked while hovering. Result: {"fits": bool, "error": Problem|None,
    "free_mib", "need_mib"}."""

    host: Identifier
    image: ImageId | None = None
    guest: Identifier | None = None
    memory_mib: Annotated[int, Meta(ge=1, le=4096)] | None = None


class LockstepQuery(Query, tag="lockstep", frozen=True):
    """A guest's image, started afresh on a machine like its host's, beside the same on one whose sensitive instructions
    all trap: as far as they go the same way.

    Result: {"instructions": that were the same, "ended": bool, "difference": None | {"pc", "instruction": text,
    "symbol": str|None, "source": {"file", "line", "text"}|None, "x86": the instructions that it imitates, "values":
    [[register, there, here]]}}. ended: the guest came to its end; neither ended nor a difference: the comparison did,
    after no instruction at all where the host's are the instructions that trap.
    """

    guest: Identifier


class SnapshotQuery(Query, tag="snapshot", frozen=True):
    """A kept snapshot as a file (engine.snapshot). Result: {"name", "content": bytes}."""

    image: ImageId


class GdbQuery(Query, tag="gdb", frozen=True):
    """Open a port on which gdb can take a guest over, or close it. Result: {"address", "port": int|None}."""

    guest: Identifier
    open: bool = True


class CostsQuery(Query, tag="costs", frozen=True):
    """The table of modelled switch costs with sources, of `profile` or of the lab's own. Result: {"profile", "profiles":
    [id], "overrides": {crossing: cycles}, "rows": [{"crossing", "stacks": [id], "cycles": the profile's, "source",
    "note": how it follows from the source, or None, "verified": was it compared with the source?}]}."""

    profile: ProfileId | None = None


LabQuery = (
    TraceQuery | StretchQuery | TraceDetailQuery | RegistersQuery | MemoryQuery | WalkQuery | CodeQuery | TranslationQuery
    | SymbolsQuery | TimelineQuery | LockstepQuery | FitsQuery | SnapshotQuery | CostsQuery
)  # fmt: skip
AnyQuery = LabQuery | GdbQuery  # a lab's worker opens the port


class Problem(Struct, frozen=True):
    """A refusal for the person who caused it. `key` names a sentence in the page's catalogue ("error.<key>"),
    `params` fills it, `message` is the English sentence for terminals and logs."""

    key: str
    message: str
    params: dict[str, str | int] = {}


class LabError(Exception):
    """Raised by the engine when a command or query cannot be carried out; nothing has changed."""

    def __init__(self, key: str, message: str, **params: str | int) -> None:
        super().__init__(message)
        self.problem = Problem(key, message, params)
