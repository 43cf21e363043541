"""Configurations: what goes together, how it is written, and what labs of former days become."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec import Struct

from engine import snapshot
from engine.checkpoint import pack, unpack
from engine.commands import (
    GuestCreate,
    GuestPower,
    HostCreate,
    HostStack,
    ImageAdd,
    LabError,
    LabRedo,
    LabUndo,
    SnapshotTake,
    StackId,
    TechniqueId,
)
from engine.document import GuestRow, HostRow, ImageRow
from engine.hypervisor.guest import OFF, STOPPED
from engine.hypervisor.stacks import HYPERVISORS, STACKS, Configuration
from engine.hypervisor.vm_guest import TECHNIQUES
from engine.lab import Lab
from engine.world import World
from tests.support.labs import console, guests_of, lab_of, run_to


def test_every_name_has_its_row() -> None:
    assert set(get_args(StackId)) == set(STACKS)
    assert set(get_args(TechniqueId)) == set(TECHNIQUES)


def test_every_technique_runs_on_every_hypervisor_but_where_the_devices_are_passed_through() -> None:
    assert {stack for stack in HYPERVISORS if len(STACKS[stack].techniques) < len(TECHNIQUES)} == {"cloud"}


@pytest.mark.parametrize(
    ("text", "stack", "technique"),
    [
        ("bare-metal", "bare-metal", None),
        ("kvm", "kvm", "hardware-assist"),
        ("trap-and-emulate", "kvm", "trap-and-emulate"),
        ("xen/trap-and-emulate", "xen", "trap-and-emulate"),
    ],
)
def test_a_configuration_is_read_and_written(text: str, stack: str, technique: str | None) -> None:
    found = Configuration.parse(text)
    assert (found.stack, found.technique, found.switches) == (stack, technique, ())
    assert Configuration.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "no-such-configuration"),
        ("type1-trap-and-emulate", "no-such-configuration"),
        ("xen/paper", "no-such-configuration"),
        ("paper/hardware-assist", "no-such-configuration"),
        ("cloud/trap-and-emulate", "technique-not-on-stack"),
        ("bare-metal/hardware-assist", "technique-not-on-stack"),
        ("kvm+wings", "no-such-switch"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, key: str) -> None:
    with pytest.raises(LabError) as refusal:
        Configuration.parse(text)
    assert refusal.value.problem.key == key


def test_only_the_technique_decides_whether_the_harts_have_the_h_extension() -> None:
    rows = [
        HostRow(number, "host", 0.0, 0.0, 1, 64, stack, technique)
        for number, (stack, technique) in enumerate(
            [("bare-metal", None), ("xen", "trap-and-emulate"), ("xen", "hardware-assist")], 1
        )
    ]
    world = World.build(rows, [], lambda _name: pytest.fail("no guest"), lambda _guest, _data: None)
    assert [host.harts[0].hypervisor for host in world.hosts.values()] == [1, 0, 1]


def test_a_host_changes_its_technique_and_back() -> None:
    lab = Lab.new("a")
    host = lab.apply(HostCreate(stack="xen"))["host"]
    lab.apply(HostStack(host, "xen", "trap-and-emulate"))
    assert lab.document()["hosts"][0]["technique"] == "trap-and-emulate"
    lab.apply(HostStack(host, "xen", "trap-and-emulate"))  # nothing to change: nothing to undo
    lab.apply(LabUndo())
    assert lab.document()["hosts"][0]["technique"] == "hardware-assist"
    with pytest.raises(LabError, match="does not virtualize by"):
        lab.apply(HostStack(host, "bare-metal", "trap-and-emulate"))


def _as_it_was(tree: Any) -> Any:
    """Rows as they were when each stack had one technique."""
    if isinstance(tree, list):
        return [_as_it_was(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    old = {key: _as_it_was(item) for key, item in tree.items() if key not in ("technique", "switches")}
    if tree.get("technique"):
        old["stack"] = f"type1-{tree['technique']}"
    return old


def test_a_lab_of_former_days_goes_on_as_the_same() -> None:
    lab = lab_of(["run=demo"])
    lab.apply(HostStack(lab.apply(HostCreate(stack="bare-metal"))["host"], "kvm", "hardware-assist"))
    lab.run(50_000)
    lab.apply(SnapshotTake(lab.document()["guests"][0]["id"]))
    root = unpack(lab.save())
    former = root | {name: _as_it_was(root[name]) for name in ("document", "undo", "redo")}
    assert [row["stack"] for row in former["document"]["hosts"].values()] == [
        "type1-trap-and-emulate", "type1-hardware-assist",
    ]  # fmt: skip
    again = Lab.load(pack(former))
    assert again.document() == lab.document()
    again.apply(LabUndo())
    lab.apply(LabUndo())
    assert again.document() == lab.document()
    for one in (lab, again):
        run_to(one, 80_000)
    assert again.trace_hash() == lab.trace_hash()


class _FormerAbout(Struct, frozen=True):
    guest: GuestRow
    stack: str
    image: ImageRow


def test_a_snapshot_of_former_days_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_of(["run=demo"], configuration="hardware-assist")
    lab.run(50_000)
    lab.apply(SnapshotTake(lab.document()["guests"][0]["id"]))
    [content] = unpack(lab.save())["images"].values()
    found = snapshot.read(content)
    former: Any = _FormerAbout(found.about.guest, "type1-hardware-assist", found.about.image)
    monkeypatch.setattr(snapshot, "_check_size", lambda _about, _contents: None)
    old = snapshot.write(snapshot.Snapshot(former, found.state, found.image))
    assert snapshot.identity(old) != snapshot.identity(content)
    assert snapshot.read(old).about == found.about
    taken = lab.apply(ImageAdd("old.ringside", old))["image"]
    assert taken == snapshot.identity(old)
    lab.apply(GuestCreate(lab.document()["hosts"][0]["id"], taken))


# -- another stack under guests --------------------------------------------------------------------------
def test_guests_come_along_to_another_stack_and_back() -> None:
    lab = lab_of(["run=work switch 10000", "run=work syscall 300;poweroff 3"])
    run_to(lab, 100_000)
    before = lab.trace_hash()
    instructions = [lab.world.guest(guest).instructions for guest in guests_of(lab)]
    for configuration in ("vmware/hardware-assist", "parallels/trap-and-emulate", "xen"):
        wanted = Configuration.parse(configuration)
        lab.drain()
        lab.apply(HostStack(1, wanted.stack, wanted.technique, guests="carry"))
        assert lab.document()["hosts"][0]["stack"] == wanted.stack
        assert [lab.world.guest(guest).instructions for guest in guests_of(lab)] == instructions
        run_to(lab, lab.position + 100_000)
        now = [lab.world.guest(guest).instructions for guest in guests_of(lab)]
        assert now[0] > instructions[0]
        lab.drain()
        instructions = now
    run_to(lab, lab.position + 200_000)
    status = lab.keyframe()["status"][str(guests_of(lab)[1])]
    assert (status["state"], status["exit_status"]) == (STOPPED, 3)
    shown = console(lab, guests_of(lab)[1])
    for _ in range(3):
        lab.apply(LabUndo())
    assert lab.trace_hash() == before
    for _ in range(3):
        lab.apply(LabRedo())
    assert lab.document()["hosts"][0]["stack"] == "xen"
    assert len(console(lab, guests_of(lab)[1])) <= len(shown)
    assert Lab.load(lab.save()).document() == lab.document()


def test_guests_are_switched_off_or_there_must_be_none() -> None:
    lab = lab_of(["run=demo"])
    run_to(lab, 50_000)
    with pytest.raises(LabError, match="still has guests"):
        lab.apply(HostStack(1, "bare-metal"))
    with pytest.raises(LabError, match="Switch them off"):
        lab.apply(HostStack(1, "bare-metal", guests="carry"))
    lab.apply(HostStack(1, "bare-metal", guests="stop"))
    [guest] = guests_of(lab)
    assert lab.keyframe()["status"][str(guest)]["state"] == OFF
    lab.apply(GuestPower(guest, "on"))
    run_to(lab, lab.position + 200_000)
    assert b"demo: round 1" in console(lab, guest)


def test_what_the_other_stack_cannot_take_changes_nothing() -> None:
    lab = lab_of(["run=demo", "run=demo"])
    run_to(lab, 50_000)
    document, before = lab.document(), lab.trace_hash()
    with pytest.raises(LabError, match="runs one system"):
        lab.apply(HostStack(1, "bare-metal", guests="stop"))
    assert lab.document() == document
    run_to(lab, 60_000)
    again = lab_of(["run=demo", "run=demo"])
    run_to(again, 60_000)
    assert lab.trace_hash() == again.trace_hash() != before
