"""A guest in a file: it goes on as if it had never stopped, and nothing comes of a file that is not whole."""

from __future__ import annotations

import random
import struct
from functools import cache

import msgspec
import pytest
import zstandard

from engine import guests, snapshot
from engine.checkpoint import VERSION
from engine.commands import (
    FitsQuery,
    GuestCreate,
    GuestPower,
    HostCreate,
    ImageAdd,
    ImageAssemble,
    LabError,
    LabRedo,
    LabUndo,
    SnapshotQuery,
    SnapshotTake,
)
from engine.document import GuestRow
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import Configuration
from engine.images import Images, builtin_rows
from engine.lab import Lab
from engine.library import Library
from engine.machine.loader import inspect
from engine.snapshot import About, Machine, Snapshot
from engine.trace.rings import Trace
from engine.world import Scrollback
from tests.support.labs import console, guests_of, host_create, lab_of, registers, ringos_for, run_to

STACKS = ("bare-metal", "trap-and-emulate", "binary-translation", "hardware-assist", "paravirtual")
END = 120_000
MEMORY_MIB = 16


def _machine(stack: str, harts: int) -> tuple[Host, Trace, bytearray]:
    shown = bytearray()
    trace = Trace()
    host = Host(1, harts, 4 * MEMORY_MIB, Configuration.parse(stack), trace, lambda _guest, data: shown.extend(data))
    name = ringos_for(stack)
    host.add_guest(1, inspect(guests.load_image(name), name), 1, MEMORY_MIB, "run=demo")
    return host, trace, shown


def _file(host: Host, trace: Trace) -> bytes:
    name = ringos_for(str(host.configuration))
    row, image = GuestRow(1, "guest", 1, name, 1, MEMORY_MIB, "run=demo"), builtin_rows()[name]
    about = About(row, image, *msgspec.structs.astuple(host.configuration))
    kept = {"trace": trace.save_guest(1), "console": Scrollback().save()}
    machine = Machine(len(host.harts), host.memory_mib, 1, host.save(), trace.save_guest(1))
    return snapshot.write(Snapshot(about, {"machine": host.export_guest(1), "kept": kept}, None, machine))


@pytest.mark.parametrize("harts", [1, 2])
@pytest.mark.parametrize("stack", STACKS)
def test_a_machine_goes_on_as_if_it_had_never_stopped(stack: str, harts: int) -> None:
    whole, trace, shown = _machine(stack, harts)
    whole.run(END)
    chance = random.Random(f"{stack} {harts}")
    for position in sorted(chance.randrange(1, END) for _ in range(4)):
        first, early, begun = _machine(stack, harts)
        first.run(position)
        late, ended = Trace(), bytearray()
        second = snapshot.resume(
            snapshot.read(_file(first, early)), Images(Library()), 1, late, lambda _guest, data: ended.extend(data)  # noqa: B023
        )
        second.run(END - position)
        assert late.hash() == trace.hash(), position
        assert second.save() == whole.save(), position
        assert begun + ended == shown


@cache
def _kept(stack: str, steps: int = 60_000) -> bytes:
    lab = lab_of(["run=demo"], configuration=stack)
    lab.run(steps)
    image = lab.apply(SnapshotTake(1 + 1))["image"]
    content: bytes = lab.query(SnapshotQuery(image))["content"]
    return content


# -- in a lab ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("stack", STACKS)
def test_a_guest_goes_on_in_another_lab(stack: str) -> None:
    lab = Lab.new("other")
    image = lab.apply(ImageAdd("mine.ringside", _kept(stack)))["image"]
    row = next(row for row in lab.document()["images"] if row["id"] == image)
    assert (row["kind"], row["name"], row["snapshot"]["image"]) == ("snapshot", "mine", ringos_for(stack))
    host = lab.apply(host_create(stack))["host"]
    guest = lab.apply(GuestCreate(host, image))["guest"]
    origin = lab_of(["run=demo"], configuration=stack)
    origin.run(60_000)
    there = registers(origin, guests_of(origin)[0])
    here = registers(lab, guest)
    assert (here["pc"], here["x"], here["level"]) == (there["pc"], there["x"], there["level"])
    assert console(lab, guest) == console(origin, guests_of(origin)[0])
    lab.run(200_000)
    assert len(console(lab, guest)) > len(console(origin, guests_of(origin)[0]))
    assert lab.keyframe()["status"][str(guest)]["state"] in (1, 2)


def test_the_snapshot_is_taken_and_used_under_undo_and_kept_with_the_lab() -> None:
    lab = lab_of(["run=demo"])
    [first] = guests_of(lab)
    lab.run(30_000)
    image = lab.apply(SnapshotTake(first, "before"))["image"]
    host = lab.document()["hosts"][0]["id"]
    second = lab.apply(GuestCreate(host, image))["guest"]
    assert lab.query(FitsQuery(host, image=image))["need_mib"] == 16
    lab.run(50_000)
    lab.apply(LabUndo())
    assert guests_of(lab) == [first]
    lab.apply(LabRedo())
    copy = Lab.load(lab.save())
    end = lab.position + 40_000
    for each in (lab, copy):
        assert guests_of(each) == [first, second]
        run_to(each, end)
    assert lab.trace_hash() == copy.trace_hash()
    third = copy.apply(GuestCreate(host, image))["guest"]
    assert registers(copy, third)["pc"] > 0


def test_it_goes_on_only_on_the_stack_that_it_was_taken_on() -> None:
    lab = Lab.new("other")
    image = lab.apply(ImageAdd("mine", _kept("bare-metal")))["image"]
    host = lab.apply(HostCreate(technique="trap-and-emulate"))["host"]
    fits = lab.query(FitsQuery(host, image=image))
    assert not fits["fits"]
    assert fits["error"]["key"] == "snapshot-other-technique"
    with pytest.raises(LabError, match="under bare-metal"):
        lab.apply(GuestCreate(host, image))
    assert guests_of(lab) == []


def test_its_image_travels_along_for_a_reset() -> None:
    source = "_start: li a7, 0\n li a0, 65\nloop: addi s0, s0, 1\n j loop\n"
    origin = Lab.new("origin")
    built = origin.apply(ImageAssemble("count.s", source))["image"]
    host = origin.apply(HostCreate())["host"]
    guest = origin.apply(GuestCreate(host, built))["guest"]
    origin.run(1000)
    content = origin.query(SnapshotQuery(origin.apply(SnapshotTake(guest))["image"]))["content"]
    lab = Lab.new("other")
    image = lab.apply(ImageAdd("count", content))["image"]
    kinds = {row["name"]: row["kind"] for row in lab.document()["images"] if not row["builtin"]}
    assert kinds == {"count.s": "assembly", "count": "snapshot"}
    host = lab.apply(HostCreate())["host"]
    guest = lab.apply(GuestCreate(host, image))["guest"]
    counted = registers(lab, guest)["x"][8]  # type: ignore[index]
    assert counted > 300
    lab.apply(GuestPower(guest, "reset"))
    assert registers(lab, guest)["x"][8] == 0  # type: ignore[index]


def test_its_id_does_not_depend_on_how_it_was_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = _kept("bare-metal")
    monkeypatch.setattr(snapshot, "_LEVEL", 9)
    again = snapshot.write(snapshot.read(content))
    assert again != content
    assert snapshot.identity(again) == snapshot.identity(content)
    assert snapshot.identity(_kept("bare-metal", 61_000)) != snapshot.identity(content)


# -- files that are not whole ------------------------------------------------------------------------
def _regions(content: bytes) -> dict[str, tuple[int, int]]:
    """Where each part of a file lies: name as an error gives it -> [begin, end)."""
    manifest, at = snapshot._manifest(content)
    regions = {"header": (8, 88), "manifest": (88, at), "seal": (len(content) - 32, len(content))}
    tree = snapshot._tree(manifest)
    for index, part in enumerate(manifest.contents):
        regions[snapshot._place(tree, index)] = (at, at + part.stored_bytes)
        at += part.stored_bytes
    return regions


@pytest.mark.parametrize("stack", STACKS)
def test_a_flipped_bit_is_named(stack: str) -> None:
    content = _kept(stack)
    chance = random.Random(stack)
    regions = _regions(content)
    assert len([name for name in regions if name.startswith("page 0x80")]) > 20
    for name, (begin, end) in regions.items():
        for _ in range(3):
            changed = bytearray(content)
            changed[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)
            with pytest.raises(LabError) as caught:
                snapshot.read(bytes(changed))
            assert caught.value.problem.key == "snapshot-damaged"
            assert caught.value.problem.params["part"] == name


def test_a_page_is_named_by_its_address() -> None:
    content = _kept("trap-and-emulate")
    state = snapshot.read(content).state
    page, held = max(state["machine"]["pages"].items())
    assert any(held)
    names = [name for name in _regions(content) if name.startswith("page")]
    assert f"page {page << 12:#x}" in names


def test_every_truncation_is_found() -> None:
    content = _kept("bare-metal")
    for length in {8, 9, 87, 88, 500, len(content) // 2, len(content) - 33, len(content) - 1}:
        with pytest.raises(LabError) as caught:
            snapshot.read(content[:length])
        assert caught.value.problem.key == "snapshot-truncated"
        assert caught.value.problem.params["have"] == length
    with pytest.raises(LabError, match="follow it"):
        snapshot.read(content + b"x")
    for nothing in (b"", b"RINGSNA", b"\x7fELF"):
        with pytest.raises(LabError, match="no snapshot"):
            snapshot.read(nothing)


def _sealed(manifest: bytes, rest: bytes = b"", version: int = VERSION) -> bytes:
    header = struct.pack("<8sIIQ32s", b"RINGSNAP", version, 0, len(manifest), snapshot._digest(manifest))
    body = header + snapshot._digest(header) + manifest + rest
    return body + snapshot._digest(body)


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_another_format_says_so(version: int) -> None:
    with pytest.raises(LabError) as caught:
        snapshot.read(_sealed(b"", version=version))
    assert caught.value.problem.key == "snapshot-format"
    assert caught.value.problem.params == {"version": version, "supported": VERSION}


def _with_manifest(**changes: object) -> bytes:
    content = _kept("bare-metal")
    manifest, at = snapshot._manifest(content)
    changed = msgspec.structs.replace(manifest, **changes)
    return _sealed(zstandard.compress(msgspec.msgpack.encode(changed)), content[at:-32])


def test_bombs_are_not_unpacked() -> None:
    huge = zstandard.compress(bytes(snapshot.MANIFEST_BYTES + 1))
    assert len(huge) < 10_000
    with pytest.raises(LabError, match="impossible size"):
        snapshot.read(_sealed(huge))
    contents = snapshot._manifest(_kept("bare-metal"))[0].contents
    large = [msgspec.structs.replace(part, plain_bytes=snapshot.CONTENT_BYTES) for part in contents]
    with pytest.raises(LabError, match="is the most"):
        snapshot.read(_with_manifest(contents=large))
    zeros = bytes(1 << 26)
    packed = zstandard.compress(zeros)
    lying = snapshot._Content(len(packed), 4096, snapshot._digest(packed), snapshot._digest(bytes(4096)))
    tree = msgspec.msgpack.encode({"state": {}, "image": None, "machine": None})
    about = snapshot.read(_kept("bare-metal")).about
    manifest = zstandard.compress(msgspec.msgpack.encode(snapshot._Manifest(about, tree, [lying])))
    with pytest.raises(LabError, match="another size"):
        snapshot.read(_sealed(manifest, packed))


def test_what_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found = snapshot.read(_kept("bare-metal"))
    large = msgspec.structs.replace(found.about.guest, memory_mib=1024)
    for about, limit in ((msgspec.structs.replace(found.about, guest=large), 1 << 20), (found.about, 4000)):
        monkeypatch.setattr(snapshot, "CONTENT_BYTES", limit)
        with pytest.raises(LabError) as caught:
            snapshot.write(msgspec.structs.replace(found, about=about))
        assert caught.value.problem.key == "snapshot-too-large"


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (b"\x91" * 100_000 + b"\xc0", "recursion"),
        (msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\xff\xff\0\0")), "no content"),
        (msgspec.msgpack.encode(msgspec.msgpack.Ext(7, b"")), "unknown extension"),
        (msgspec.msgpack.encode([1, 2]), "manifest"),
        (msgspec.msgpack.encode({"state": 3, "image": None, "machine": None}), "manifest"),
    ],
    ids=["deep nesting", "missing content", "unknown extension", "no map", "no state"],
)
def test_nonsense_that_is_well_sealed(tree: bytes, reason: str) -> None:
    with pytest.raises(LabError, match=f"(?i){reason}|recursion") as caught:
        snapshot.read(_with_manifest(tree=tree))
    assert caught.value.problem.key == "snapshot-damaged"


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    "change",
    [
        lambda hart: hart.update(privilege=2),
        lambda hart: hart.update(pc=-4),
        lambda hart: hart["csrs"].update(satp=15 << 60),
        lambda hart: hart["csrs"].update(mstatus=2 << 11),
        lambda hart: hart["x"].append(0),
        lambda hart: hart["x"].__setitem__(3, "three"),
        lambda hart: hart.pop("steps"),
    ],
    ids=["privilege", "pc", "satp", "MPP", "33 registers", "text", "missing"],
)
def test_a_state_that_no_hart_can_have(stack: str, change: object) -> None:
    found = snapshot.read(_kept(stack))
    machine = found.state["machine"]
    hart = machine["harts"][0] if stack == "bare-metal" else machine["vcpus"][0]["virtual"]
    change(hart)  # type: ignore[operator]
    lab = Lab.new("other")
    with pytest.raises(LabError) as caught:
        lab.apply(ImageAdd("bad", snapshot.write(found)))
    assert caught.value.problem.key == "snapshot-damaged"
    assert len(lab.document()["images"]) == len(builtin_rows())


@pytest.mark.parametrize(
    "change",
    [
        lambda domain: domain.update(shared=5),
        lambda domain: domain.update(shared=0x80200800),
        lambda domain: domain.update(shared=0x80000000 + (MEMORY_MIB << 20)),
        lambda domain: domain.update(shared="page"),
        lambda domain: domain["console"].update(page=0x1000),
        lambda domain: domain["console"].update(waiting="typed"),
        lambda domain: domain["rings"][1].update(page=-4096),
        lambda domain: domain["rings"].pop(),
        lambda domain: domain["pins"].append(1),
        lambda domain: domain["pins"].append(domain["pins"][0]),
        lambda domain: domain.pop("pins"),
    ],
)
def test_what_no_paravirtual_guest_can_have_agreed_to(change: object) -> None:
    found = snapshot.read(_kept("paravirtual"))
    change(found.state["machine"]["board"]["domain"])  # type: ignore[operator]
    with pytest.raises(LabError) as caught:
        snapshot.try_out(found, Images(Library()))
    assert caught.value.problem.key == "snapshot-damaged"


@pytest.mark.parametrize("pins", [[], [0x80210], list(range(0x80210, 0x80240))])
def test_page_tables_that_a_snapshot_only_claims(pins: list[int]) -> None:
    """Roots that are none: whatever is there is checked like any table, and the guest ends at most."""
    found = snapshot.read(_kept("paravirtual"))
    found.state["machine"]["board"]["domain"]["pins"] = pins
    lab = Lab.new("other")
    image = lab.apply(ImageAdd("odd", snapshot.write(found)))["image"]
    host = lab.apply(HostCreate(technique="paravirtual"))["host"]
    guest = lab.apply(GuestCreate(host, image))["guest"]
    lab.run(20_000)
    assert lab.keyframe()["status"][str(guest)]["state"] == 4


def test_a_page_outside_of_its_memory() -> None:
    found = snapshot.read(_kept("trap-and-emulate"))
    found.state["machine"]["pages"][0x80000 + (MEMORY_MIB << 8)] = bytes(4096)
    with pytest.raises(LabError, match="no page of its memory"):
        snapshot.try_out(found, Images(Library()))
