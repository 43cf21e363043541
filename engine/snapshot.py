"""A guest with everything it is, as one file: content-addressed, compressed, and checked part by part.

    header     magic (8) | version (u32 LE) | zero (u32) | size of the manifest (u64) | BLAKE2b of it (32)
               | BLAKE2b of the 56 bytes before (32)
    manifest   zstandard frame of MessagePack {"about", "state", "machine", "contents"}
    contents   one zstandard frame after the other; a memory page is one of them, an image another
    seal       BLAKE2b of everything before (32)

`state` is what `World.export_guest` gives: with it the guest goes on, on any host of the same stack, with the
hypervisor's caches cold. `machine` is the whole host around it where `ringside run` made the file (None
otherwise): with it the guest goes on exactly as if it had never stopped. Every byte string of
`checkpoint.POOLED` bytes or more in either is a reference to a content; equal ones are kept once, by hash.

Invariants
- `write` is a function of its arguments; `identity` does not depend on how they were compressed.
- `read` raises nothing but LabError, and nothing comes of a file in which a single bit differs: the error
  names the part, and of a page its address. It allocates no more than the file's checked sizes add up to,
  and they are bounded.
- The hashes find damage, not malice. So before a guest of a file joins a lab, `try_out` proves on a machine
  of its own that the state has the shape of one that Ringside writes, loads, comes back the same, and runs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import msgspec
import zstandard
from msgspec import Meta, Raw, Struct

from engine.bits import MASK64
from engine.checkpoint import NONSENSE, VERSION, pack, pooled, resolved, unpack
from engine.commands import LabError, StackId, Switches, TechniqueId
from engine.document import GuestRow, HostRow, ImageRow
from engine.hypervisor.costs import DEFAULT_COSTS, Costs
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration, migrated
from engine.images import Images
from engine.isa.csrs import CSRS
from engine.machine import csrfile
from engine.machine.hart import Hart
from engine.machine.loader import RAM_BASE, LoadedImage, inspect, with_firmware, with_initrd
from engine.machine.memory import PAGE
from engine.machine.privileged import MACHINE, SUPERVISOR, USER
from engine.machine.state import NEVER, HartState
from engine.machine.tiers import Tier
from engine.trace.rings import Trace
from engine.world import World, anew

MAGIC = b"RINGSNAP"
SUFFIX = ".ringside"
MANIFEST_BYTES = 64 << 20
CONTENT_BYTES = 128 << 20
TOTAL_BYTES = 1 << 30
#: How long a guest from a file is run before it may join a lab.
TRIAL_STEPS = 2_000

_HEADER = struct.Struct("<8sIIQ32s")
_DIGEST = 32
_LEVEL = 3
_TRIAL_HOST, _TRIAL_GUEST, _FRESH_GUEST = 1, 1, 2
#: A trial's host holds two such guests beside the hypervisor.
_TRIAL_MEMORY_FACTOR, _TRIAL_MEMORY_MIB = 3, 64


class About(Struct, frozen=True):
    """What a snapshot is of, without its state."""

    guest: GuestRow
    image: ImageRow
    stack: StackId
    technique: TechniqueId | None = None
    switches: Switches = ()

    @property
    def configuration(self) -> Configuration:
        """Of its host. Raises LabError when there is none such."""
        return Configuration.of(self.stack, self.technique, self.switches)


class Snapshot(Struct, frozen=True):
    """`state`: as `World.export_guest` gives it. `image`: the files of an image that is somebody's own, by what
    they are ("kernel", "initrd", "firmware", "disk"); None when Ringside or its library has the image. `machine`:
    see the module."""

    about: About
    state: dict[str, Any]
    image: dict[str, bytes] | None
    machine: Machine | None = None


class Machine(Struct, frozen=True):
    """A host with one guest. `state`: as `Host.save` gives it; `trace`: as `Trace.save_guest`."""

    harts: Annotated[int, Meta(ge=1, le=8)]
    memory_mib: Annotated[int, Meta(ge=16, le=4096)]
    guest: int
    state: dict[str, Any]
    trace: dict[str, Any]
    costs: Costs = DEFAULT_COSTS


class _Content(Struct, array_like=True, frozen=True):
    """One content: its bytes in the file, its bytes unpacked, and the hash of each."""

    stored_bytes: Annotated[int, Meta(ge=0)]
    plain_bytes: Annotated[int, Meta(ge=0, le=CONTENT_BYTES)]
    stored_digest: Annotated[bytes, Meta(min_length=_DIGEST, max_length=_DIGEST)]
    plain_digest: Annotated[bytes, Meta(min_length=_DIGEST, max_length=_DIGEST)]


class _Manifest(Struct, frozen=True):
    about: Raw  # About, as MessagePack: a snapshot keeps its identity whatever its rows look like today
    tree: bytes  # {"state", "image", "machine"}, its larger byte strings in `contents`
    contents: list[_Content]


def is_snapshot(content: bytes) -> bool:
    """Does a file claim to be a snapshot?"""
    return content.startswith(MAGIC)


# -- writing -----------------------------------------------------------------------------------------
def write(snapshot: Snapshot) -> bytes:
    """The file of a snapshot. Raises LabError "snapshot-too-large" for one that could not be read again."""
    machine = snapshot.machine and msgspec.to_builtins(snapshot.machine, builtin_types=(bytes,))
    tree, plain = pooled({"state": snapshot.state, "image": snapshot.image, "machine": machine})
    _check_size(snapshot.about, plain)
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    stored = [compressor.compress(content) for content in plain]
    contents = [
        _Content(len(packed), len(content), _digest(packed), _digest(content))
        for packed, content in zip(stored, plain, strict=True)
    ]
    about = Raw(msgspec.msgpack.encode(snapshot.about))
    manifest = compressor.compress(msgspec.msgpack.encode(_Manifest(about, tree, contents)))
    header = _HEADER.pack(MAGIC, VERSION, 0, len(manifest), _digest(manifest))
    body = b"".join((header, _digest(header), manifest, *stored))
    return body + _digest(body)


def _check_size(about: About, contents: list[bytes]) -> None:
    largest, total = max(map(len, contents), default=0), sum(map(len, contents))
    try:
        msgspec.convert(msgspec.to_builtins(about), About)
    except msgspec.ValidationError as error:
        raise _too_large(str(error)) from error
    if largest > CONTENT_BYTES or total > TOTAL_BYTES:
        raise _too_large(f"{total >> 20} MiB, {largest >> 20} MiB of them in one file")


def _too_large(what: str) -> LabError:
    limit = CONTENT_BYTES >> 20
    return LabError(
        "snapshot-too-large",
        f"This guest is too large for a snapshot ({what}); its files may have {limit} MiB each, and all of it "
        f"{TOTAL_BYTES >> 20} MiB.",
        what=what,
        limit=limit,
        total=TOTAL_BYTES >> 20,
    )


def identity(content: bytes) -> str:
    """The id of a snapshot among a lab's images: a hash of what it holds, however it was compressed. Raises
    LabError."""
    manifest = _manifest(content, older=True)[0]
    whole = hashlib.blake2b(digest_size=_DIGEST)
    whole.update(bytes(manifest.about) + _digest(manifest.tree))
    for part in manifest.contents:
        whole.update(part.plain_digest)
    return "snapshot:" + whole.hexdigest()


# -- reading -----------------------------------------------------------------------------------------
def read(content: bytes) -> Snapshot:
    """The snapshot in a file. Raises LabError "snapshot-foreign", "snapshot-format", "snapshot-truncated" or
    "snapshot-damaged"."""
    manifest, at = _manifest(content)
    tree = _tree(manifest)
    stored = sum(part.stored_bytes for part in manifest.contents)
    plain = sum(part.plain_bytes for part in manifest.contents)
    if plain > TOTAL_BYTES:
        raise damaged("manifest", f"its contents claim {plain} bytes, and {TOTAL_BYTES} is the most")
    _expect(content, at + stored + _DIGEST, "contents")
    unpacker = zstandard.ZstdDecompressor()
    pool = []
    for index, part in enumerate(manifest.contents):
        packed = content[at : at + part.stored_bytes]
        at += part.stored_bytes
        if _digest(packed) != part.stored_digest:
            raise damaged(_place(tree, index), "its checksum does not match")
        pool.append(_unpacked(unpacker, packed, part, _place(tree, index)))
    if len(content) != at + _DIGEST:
        raise damaged("seal", f"{len(content) - at - _DIGEST} bytes follow it")
    if _digest(content[:at]) != content[at:]:
        raise damaged("seal", "its checksum does not match")
    try:
        root = resolved(manifest.tree, pool)
        return Snapshot(
            msgspec.convert(migrated(msgspec.msgpack.decode(manifest.about)), About),
            msgspec.convert(root["state"], dict[str, Any]),
            msgspec.convert(root["image"], dict[str, bytes] | None),
            msgspec.convert(root["machine"], Machine | None),
        )
    except (*NONSENSE, LookupError) as error:
        raise damaged("manifest", _reason(error)) from error


def _manifest(content: bytes, older: bool = False) -> tuple[_Manifest, int]:
    """The manifest, and where the contents begin. older: also of a file whose guest cannot go on here."""
    begin = _HEADER.size + _DIGEST
    if not is_snapshot(content):
        raise LabError("snapshot-foreign", "This file is no snapshot of Ringside's.")
    _expect(content, begin, "header")
    _, version, _zero, size, digest = _HEADER.unpack_from(content)
    if _digest(content[: _HEADER.size]) != content[_HEADER.size : begin]:
        raise damaged("header", "its checksum does not match")
    if version != VERSION and not (older and version < VERSION):
        raise LabError(
            "snapshot-format",
            f"This snapshot has format {version}; this Ringside reads format {VERSION}.",
            version=version,
            supported=VERSION,
        )
    _expect(content, begin + size, "manifest")
    packed = content[begin : begin + size]
    if _digest(packed) != digest:
        raise damaged("manifest", "its checksum does not match")
    try:
        claimed = zstandard.frame_content_size(packed)
        if not 0 <= claimed <= MANIFEST_BYTES:
            raise damaged("manifest", "it claims an impossible size")
        plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=MANIFEST_BYTES)
        return msgspec.msgpack.decode(plain, type=_Manifest), begin + size
    except NONSENSE as error:
        raise damaged("manifest", _reason(error)) from error


def _tree(manifest: _Manifest) -> Any:
    """The tree with the number of a content where the content will be."""
    try:
        return resolved(manifest.tree, _Numbers(len(manifest.contents)))  # type: ignore[arg-type]
    except NONSENSE as error:
        raise damaged("manifest", _reason(error)) from error


class _Numbers:
    """A pool whose contents are their own numbers."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, index: int) -> int:
        if index >= self._count:
            raise IndexError(f"there is no content {index}")
        return index


def _place(tree: Any, index: int) -> str:
    """What a person calls content `index`: the page at its address, or the field that refers to it."""
    try:
        machine = tree["state"]["machine"]
        first = RAM_BASE // PAGE if "harts" in machine else 0  # bare metal counts pages from the start of RAM
        for page, number in machine["pages"].items():
            if number == index:
                return f"page {(page + first) * PAGE:#x}"
    except (LookupError, TypeError, AttributeError):
        return f"content {index}"
    return "image" if index in (tree["image"] or {}).values() else f"content {index}"


def _unpacked(unpacker: zstandard.ZstdDecompressor, packed: bytes, part: _Content, place: str) -> bytes:
    try:
        if zstandard.frame_content_size(packed) != part.plain_bytes:
            raise damaged(place, "it has another size than the manifest says")
        plain = unpacker.decompress(packed, max_output_size=part.plain_bytes)
    except zstandard.ZstdError as error:
        raise damaged(place, _reason(error)) from error
    if _digest(plain) != part.plain_digest:
        raise damaged(place, "its content has another hash than its name")
    return plain


def _expect(content: bytes, size: int, part: str) -> None:
    if len(content) < size:
        raise LabError(
            "snapshot-truncated",
            f"The snapshot ends after {len(content)} bytes, inside its {part}; it needs {size}. "
            "Copy it again.",
            have=len(content),
            need=size,
            part=part,
        )


def damaged(part: str, reason: str) -> LabError:
    """The refusal of a snapshot in which something is wrong; `part` says where."""
    return LabError(
        "snapshot-damaged", f"The snapshot is damaged in its {part}: {reason}.", part=part, reason=reason
    )


def image_missing(about: About) -> LabError:
    """The refusal of a snapshot whose image is not here."""
    return LabError(
        "snapshot-image",
        f"The snapshot's guest starts again from the image {about.image.name}, which is not here. Add it first.",
        image=about.image.name,
    )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


# -- trying out --------------------------------------------------------------------------------------
def try_out(snapshot: Snapshot, images: Images) -> LoadedImage:
    """Refuse a state that no guest could have. Raises LabError "snapshot-damaged", or "snapshot-image" when neither
    the snapshot nor `images` has its image; changes nothing. The image, ready to start."""
    with _refusing("image"):
        image = _image(snapshot, images)
    with _refusing("state"):
        _try(snapshot, image)
    return image


@contextmanager
def _refusing(part: str) -> Iterator[None]:
    """Whatever nonsense in a stranger's file leads to is a refusal."""
    try:
        yield
    except LabError as error:
        if error.problem.key in {"snapshot-damaged", "snapshot-image"}:
            raise
        raise damaged(part, error.problem.message) from error
    except Exception as error:
        raise damaged(part, f"{type(error).__name__} {error}") from error


def _image(snapshot: Snapshot, images: Images) -> LoadedImage:
    row, files = snapshot.about.image, snapshot.image
    if files is None:
        if images.common_row(row.id) is None:
            raise image_missing(snapshot.about)
        return images.loaded(row.id)
    image = inspect(files["kernel"], row.name)
    if "initrd" in files:
        image = with_initrd(image, files["initrd"])
    if "firmware" in files:
        image = with_firmware(image, inspect(files["firmware"], "firmware"))
    return replace(image, disk=files["disk"]) if "disk" in files else image


def _try(snapshot: Snapshot, image: LoadedImage) -> None:
    about = snapshot.about
    memory = _TRIAL_MEMORY_FACTOR * about.guest.memory_mib + _TRIAL_MEMORY_MIB
    row = msgspec.structs.replace(about.guest, id=_TRIAL_GUEST, host=_TRIAL_HOST)
    host = HostRow(_TRIAL_HOST, "host", 0.0, 0.0, row.vcpus, memory, about.stack, about.technique, about.switches)

    def world() -> World:
        return World.build([host], [], lambda _name: image, _unheard)

    model = world()
    model.add_guest(msgspec.structs.replace(row, id=_FRESH_GUEST))
    state = anew(snapshot.state)
    _same_shape(state, anew(model.export_guest(_FRESH_GUEST)), "state")
    _check_pages(snapshot)
    trial = world()
    trial.import_guest(row, state)
    for vcpu in range(row.vcpus):
        _check_hart(trial.guest(row.id).hart(vcpu))
    if _lasting(trial.export_guest(row.id)) != _lasting(state):
        raise damaged("state", "it does not come back as it was given")
    _go(trial, row.id)
    # What a lab does with it later: keep it, and go back to it.
    trial.load(unpack(pack(trial.save())))
    _go(trial, row.id)


def resume(
    snapshot: Snapshot,
    images: Images,
    guest: int,
    trace: Trace,
    console: Callable[[int, bytes], None],
    tier: Tier = Tier.JIT,
) -> Host:
    """A host with the snapshot's guest, ready to go on. With `Snapshot.machine` the records, too, go on in
    `trace`. Raises LabError."""
    image = try_out(snapshot, images)
    about, machine = snapshot.about, snapshot.machine
    row = about.guest
    if machine is None:
        memory = _TRIAL_MEMORY_FACTOR * row.memory_mib + _TRIAL_MEMORY_MIB
        host = Host(1, row.vcpus, memory, about.configuration, trace, console, tier=tier)
        host.import_guest(guest, image, anew(snapshot.state)["machine"])
        return host
    if machine.guest != guest:
        raise damaged("machine", f"its guest is number {machine.guest} and not {guest}")

    def loaded(records: Trace, output: Callable[[int, bytes], None]) -> Host:
        host = Host(
            1, machine.harts, machine.memory_mib, about.configuration, records, output, tier=tier, costs=machine.costs
        )
        host.add_guest(guest, image, row.vcpus, row.memory_mib, row.arguments)
        _same_shape(machine.state, host.save(), "machine")
        host.load(machine.state)
        records.load_guest(guest, machine.trace)
        return host

    with _refusing("machine"):
        trial = loaded(Trace(), _unheard)
        for vcpu in range(row.vcpus):
            _check_hart(trial.guest(guest).hart(vcpu))
        if trial.save()["harts"] != machine.state["harts"]:
            raise damaged("machine", "it does not come back as it was given")
        trial.run(TRIAL_STEPS)
    return loaded(trace, console)


def _go(trial: World, guest: int) -> None:
    trial.run(TRIAL_STEPS)
    machine = trial.guest(guest)
    machine.registers(0)
    if not 0 <= machine.instructions < NEVER:
        raise damaged("state", f"it counts {machine.instructions} instructions")


def _check_pages(snapshot: Snapshot) -> None:
    machine = snapshot.state["machine"]
    first = 0 if "harts" in machine else RAM_BASE // PAGE
    end = first + (snapshot.about.guest.memory_mib << 20) // PAGE
    for page, content in machine["pages"].items():
        if not first <= page < end or len(content) != PAGE:
            raise damaged("state", f"{page!r} is no page of its memory")


def _check_hart(hart: Hart) -> None:
    """A privilege that exists, and CSRs that a write could have left."""
    if hart.privilege not in (USER, SUPERVISOR, MACHINE):
        raise damaged("state", f"hart {hart.number} is in mode {hart.privilege}, which does not exist")
    if hart.virtual not in (0, int(hart.hypervisor and hart.privilege != MACHINE)):
        raise damaged("state", f"hart {hart.number} is in a virtual mode that does not exist")
    clean = HartState(hypervisor=hart.hypervisor)
    for row in CSRS.values():
        if row.rule in {"mstatus", "satp", "tvec"}:
            csrfile.write(clean, row, getattr(hart, row.storage))
            mask = row.writable & row.view
            mask &= ~0 if hart.hypervisor else ~row.guest_bits
            if (getattr(clean, row.storage) ^ getattr(hart, row.storage)) & mask:
                raise damaged("state", f"hart {hart.number} has a value in {row.name} that it cannot hold")


def _lasting(state: dict[str, Any]) -> list[Any]:
    """What of a guest's state does not depend on the clock and the counters of its host."""
    machine = state["machine"]
    harts = machine["harts"] if "harts" in machine else [vcpu["virtual"] for vcpu in machine["vcpus"]]
    own = ("board", "pages", "ended", "ended_as", "exit_status", "failure", "reboot")
    architectural = ("x", "f", "pc", "privilege", "csrs", "waiting", "stopped")
    return [*(machine[name] for name in own), *(hart[name] for hart in harts for name in architectural)]


def _same_shape(given: Any, model: Any, path: str) -> None:
    """`given` has the fields and types of `model`, as far as a fresh guest can show them: what is None or
    empty there says nothing about what it will be later."""
    if model is None or given is None:
        return
    if type(given) is not type(model):
        raise damaged("state", f"{path} is {type(given).__name__} and not {type(model).__name__}")
    if isinstance(model, int) and given != model and not 0 <= given <= MASK64:
        raise damaged("state", f"{path} is {given}")
    if isinstance(model, list) and model:
        for index, item in enumerate(given):
            _same_shape(item, model[min(index, len(model) - 1)], f"{path}[{index}]")
    if not isinstance(model, dict):
        return
    if model and all(isinstance(key, str) for key in model):
        if given.keys() != model.keys():
            wrong = sorted(given.keys() ^ model.keys(), key=str)[:4]
            raise damaged("state", f"{path} has other fields than it should: {wrong}")
        for key, item in model.items():
            _same_shape(given[key], item, f"{path}.{key}")


def _unheard(_guest: int, _data: bytes) -> None:
    """Nobody reads what a trial prints."""
