"""The lab's commands, its undo, and what clients hear of it."""

from __future__ import annotations

import random
from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from engine import guests
from engine.commands import (
    AnyCommand,
    ConsoleInput,
    FitsQuery,
    GuestCreate,
    GuestMigrate,
    GuestMigrateCancel,
    GuestMove,
    GuestPower,
    GuestRemove,
    GuestRename,
    GuestShare,
    HostCreate,
    HostRemove,
    HostScheduler,
    HostStack,
    HostUpdate,
    ImageAdd,
    ImageAssemble,
    LabError,
    LabPause,
    LabRedo,
    LabRename,
    LabReset,
    LabRun,
    LabSeek,
    LabSpeed,
    LabStep,
    LabUndo,
    MemoryQuery,
)
from engine.document import TILE
from engine.hypervisor.vm_guest import TECHNIQUES
from engine.lab import Lab, Limits
from engine.trace.record import RECORD
from tests.support.labs import console, crowded, guests_of, host_create, lab_of, registers, run_to


def refused(lab: Lab, command: AnyCommand) -> tuple[str, dict[str, Any]]:
    """Key and parameters of the refusal; the lab has not changed."""
    before = lab.save()
    with pytest.raises(LabError) as caught:
        lab.apply(command)
    assert lab.save() == before
    assert caught.value.problem.message
    return caught.value.problem.key, caught.value.problem.params


def rows(lab: Lab) -> dict[str, Any]:
    document = lab.document()
    return {key: document[key] for key in ("name", "hosts", "guests")}


def counted(columns: dict[str, bytes]) -> dict[tuple[int, ...], int]:
    """Columns of counters as {(guest, kind, cause, path, disposition): count}."""
    names = {"guest": "<u2", "kind": "u1", "cause": "u1", "path": "u1", "disposition": "u1", "count": "<u4"}
    table = [np.frombuffer(columns[name], kind).tolist() for name, kind in names.items()]
    return {tuple(row[:-1]): row[-1] for row in zip(*table, strict=True)}


# -- what is there ---------------------------------------------------------------------------------
def test_the_demo_is_running_and_traps() -> None:
    lab = Lab.demo()
    document = lab.document()
    assert (document["running"], document["speed"], document["unit"]) == (True, "10", "trap")
    [host], [guest] = document["hosts"], document["guests"]
    assert (host["stack"], host["technique"], host["switches"]) == ("kvm", "trap-and-emulate", [])
    assert (guest["host"], guest["image"], guest["arguments"]) == (host["id"], "ringos", "run=demo")
    assert document["undo"] is None
    assert lab.run(10_000_000, stop_after_traps=3).traps == 3


def test_the_document_names_every_builtin_image() -> None:
    images = {row["id"]: row for row in Lab.new("a").document()["images"]}
    assert list(images) == [guest.name for guest in guests.guests()]
    assert all(row["builtin"] and row["title_key"] and row["size"] for row in images.values())
    assert images["hello"]["source"] == guests.source_text("hello", "hello.s")
    assert images["ringos"]["source"] is None


def test_documents_and_pictures_can_be_sent() -> None:
    lab = crowded()
    run_to(lab, 20_000)
    for thing in (lab.document(), lab.drain(), lab.keyframe()):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(thing)) == thing


@pytest.mark.parametrize("kind", get_args(AnyCommand), ids=lambda kind: kind.__struct_config__.tag)
def test_every_command_is_known_to_the_lab(kind: type[AnyCommand]) -> None:
    lab = lab_of(["run=demo"], [], configuration="vmware")
    lab.apply(LabRename("undone"))
    lab.apply(LabUndo())
    values = {"host": 3, "guest": 2, "image": "hello", "stack": "bare-metal", "name": "n", "action": "off"}
    values |= {"place": "privilege", "number": 1, "value": 0, "percent": 5, "profile": "dall-x86-2016"}
    values |= {"content": b"\x13\0\0\0", "source": "nop\n", "data": b"x", "speed": "max", "position": 0, "gbit": 1}
    values |= {"scheduler": "credit", "share_pages": True, "overcommit": False, "balloon_mib": 1}
    if kind is GuestMigrateCancel:
        lab.apply(GuestMigrate(2, 3))
    required = [field.name for field in msgspec.structs.fields(kind) if field.required]
    assert isinstance(lab.apply(kind(**{name: values[name] for name in required})), dict)


# -- names, places, limits -------------------------------------------------------------------------
def test_names_are_unique() -> None:
    lab = lab_of(["run="], [])
    assert [row["name"] for row in lab.document()["hosts"]] == ["host-1", "host-2"]
    [guest] = guests_of(lab)
    lab.apply(GuestRename(guest, "web"))
    lab.apply(HostUpdate(1, name="rack one"))
    assert refused(lab, HostCreate(name="web")) == ("name-taken", {"name": "web"})
    assert refused(lab, GuestRename(guest, "rack one"))[0] == "name-taken"
    assert refused(lab, HostUpdate(1, name="host-2"))[0] == "name-taken"
    assert refused(lab, GuestCreate(1, "hello", name="web"))[0] == "name-taken"
    lab.apply(GuestRename(guest, "web"))
    lab.apply(HostUpdate(1, name="rack one", x=5.0))


def test_new_hosts_never_overlap() -> None:
    lab = Lab.new("a", Limits(hosts=12))
    for _ in range(8):
        lab.apply(HostCreate(memory_mib=16))
    lab.apply(HostCreate(x=TILE[0] / 2, y=10.0, memory_mib=16))
    places = [(row["x"], row["y"]) for row in lab.document()["hosts"]]
    for index, (x, y) in enumerate(places):
        assert all(abs(x - a) >= TILE[0] or abs(y - b) >= TILE[1] for a, b in places[:index])


def test_limits() -> None:
    lab = Lab.new("a", Limits(hosts=2, guests=2, memory_mib=200, images=1))
    lab.apply(HostCreate(memory_mib=128))
    key, params = refused(lab, HostCreate(memory_mib=128))
    assert (key, params) == ("lab-limit-memory", {"limit_mib": 200, "used_mib": 128, "need_mib": 128})
    lab.apply(HostCreate(memory_mib=64))
    assert refused(lab, HostCreate(memory_mib=16)) == ("lab-limit-hosts", {"limit": 2})
    for _ in range(2):
        lab.apply(GuestCreate(1, "hello"))
    assert refused(lab, GuestCreate(1, "hello")) == ("lab-limit-guests", {"limit": 2})
    assert lab.query(FitsQuery(1, image="hello"))["error"]["key"] == "lab-limit-guests"
    lab.apply(ImageAdd("a", guests.load_image("hello")))
    assert refused(lab, ImageAdd("b", guests.load_image("ringos")))[0] == "lab-limit-images"


def test_a_guest_that_does_not_fit_is_refused_and_fits_says_so_before() -> None:
    lab = Lab.new("a")
    lab.apply(HostCreate(memory_mib=16))
    answer = lab.query(FitsQuery(1, image="ringos", memory_mib=512))
    assert not answer["fits"]
    assert answer["need_mib"] == 512
    assert answer["free_mib"] <= 16
    assert refused(lab, GuestCreate(1, "ringos", memory_mib=512))[0] == answer["error"]["key"]


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (HostUpdate(9, x=1.0), "no-such-host"),
        (HostStack(9, "bare-metal"), "no-such-host"),
        (HostRemove(9), "no-such-host"),
        (GuestCreate(9, "hello"), "no-such-host"),
        (GuestCreate(1, "nope"), "no-such-image"),
        (GuestRename(9, "a"), "no-such-guest"),
        (GuestMove(9, 1), "no-such-guest"),
        (GuestMove(2, 9), "no-such-host"),
        (GuestMove(2, 1), "move-same-host"),
        (GuestRemove(9), "no-such-guest"),
        (GuestPower(9, "off"), "no-such-guest"),
        (ConsoleInput(9, b"a"), "no-such-guest"),
        (LabStep(guest=9), "no-such-guest"),
        (LabSeek(10**9), "seek-outside-history"),
        (HostStack(1, "bare-metal"), "host-has-guests"),
        (LabRedo(), "nothing-to-redo"),
    ],
)
def test_refusals(command: AnyCommand, key: str) -> None:
    assert refused(lab_of(["run="]), command)[0] == key


def test_nothing_to_undo() -> None:
    assert refused(Lab.new("a"), LabUndo())[0] == "nothing-to-undo"


# -- images ----------------------------------------------------------------------------------------
def test_an_uploaded_image_runs_like_the_builtin_one() -> None:
    lab = Lab.new("a")
    lab.apply(HostCreate())
    image = lab.apply(ImageAdd("mine.elf", guests.load_image("hello")))["image"]
    assert lab.apply(ImageAdd("again.elf", guests.load_image("hello")))["image"] == image
    assert len(lab.document()["images"]) == len(guests.guests()) + 1
    ours = lab.apply(GuestCreate(1, image, memory_mib=8))["guest"]
    theirs = lab.apply(GuestCreate(1, "hello", memory_mib=8))["guest"]
    lab.run(2_000_000)
    assert console(lab, ours) == console(lab, theirs) != b""


def test_a_damaged_image_is_refused_with_the_loaders_reason() -> None:
    key, params = refused(Lab.new("a"), ImageAdd("cut.elf", guests.load_image("hello")[:100]))
    assert key.startswith("elf-")
    assert params["image"] == "cut.elf"


def test_assembly() -> None:
    lab = Lab.new("a")
    lab.apply(HostCreate())
    source = guests.source_text("hello", "hello.s")
    image = lab.apply(ImageAssemble("mine.s", source))["image"]
    row = lab.document()["images"][-1]
    assert (row["id"], row["kind"], row["source"]) == (image, "assembly", source)
    guest = lab.apply(GuestCreate(1, image))["guest"]
    builtin = lab.apply(GuestCreate(1, "hello"))["guest"]
    lab.run(2_000_000)
    assert console(lab, guest) == console(lab, builtin) != b""


def test_an_assembly_error_points_at_its_place() -> None:
    key, params = refused(Lab.new("a"), ImageAssemble("bad.s", "_start:\n    nop\n    adddi a0, a0, 1\n"))
    assert key == "assembly"
    assert (params["line"], params["column"]) == (3, 5)


# -- undo ------------------------------------------------------------------------------------------
def test_undo_and_redo_of_everything() -> None:
    """Whatever was done: undone one by one it shows every earlier state, redone it shows every later one."""
    lab, chance = Lab.new("a", Limits(hosts=4, guests=6)), random.Random(7)
    states = [rows(lab)]
    while len(states) < 40:
        document = lab.document()
        hosts = [row["id"] for row in document["hosts"]] or [1]
        machines = [row["id"] for row in document["guests"]] or [1]
        host, guest, word = chance.choice(hosts), chance.choice(machines), f"n{len(states)}"
        command = chance.choice(
            [
                HostCreate(memory_mib=64),
                HostUpdate(host, x=chance.random(), name=word),
                HostStack(host, "bare-metal"),
                HostStack(host, "kvm", "trap-and-emulate"),
                HostRemove(host),
                GuestCreate(host, "ringos"),
                GuestCreate(host, "ringos"),
                GuestRename(guest, word),
                GuestMove(guest, host),
                GuestRemove(guest),
                LabRename(word),
            ]
        )
        try:
            lab.apply(command)
        except LabError:
            continue
        lab.run(500)
        if rows(lab) != states[-1]:
            assert lab.document()["undo"] == command.__struct_config__.tag
            assert lab.structural(command)
            states.append(rows(lab))
    for state in reversed(states[:-1]):
        lab.apply(LabUndo())
        assert rows(lab) == state
    assert lab.document()["undo"] is None
    for state in states[1:]:
        lab.apply(LabRedo())
        lab.run(200)
        assert rows(lab) == state
    assert lab.document()["redo"] is None


def picture(lab: Lab, guest: int) -> tuple[Any, ...]:
    """Everything one can see of a guest."""
    status = lab.keyframe()["status"][str(guest)]
    memory = lab.query(MemoryQuery(guest, 0x80200000, 4096, physical=True))
    trace = lab._world.trace
    return status, registers(lab, guest), memory, console(lab, guest), trace.save_guest(guest)


@pytest.mark.parametrize("whole_host", [False, True], ids=["guest", "host"])
@pytest.mark.parametrize("reload", [False, True], ids=["", "after a reload"])
def test_a_removed_guest_comes_back_as_it_was(whole_host: bool, reload: bool) -> None:
    lab = lab_of(["run=demo", "run=demo"])
    guest = guests_of(lab)[1]
    run_to(lab, 50_000)
    before = picture(lab, guest)
    lab.apply(HostRemove(1) if whole_host else GuestRemove(guest))
    assert guest not in guests_of(lab)
    lab.run(2_000)
    if reload:
        lab = Lab.load(lab.save())
    lab.apply(LabUndo())
    assert picture(lab, guest) == before
    lab.run(50_000)
    assert picture(lab, guest)[0]["instructions"] > before[0]["instructions"]


def test_a_new_change_ends_what_could_be_redone() -> None:
    lab = lab_of(["run="])
    lab.apply(LabUndo())
    assert lab.document()["redo"] == "guest.create"
    lab.apply(LabRename("other"))
    assert lab.document()["redo"] is None


def test_running_speed_and_inputs_are_not_undone() -> None:
    lab = lab_of(["run="])
    undo = lab.document()["undo"]
    for command in (LabRun(), LabPause(), LabSpeed("max"), ConsoleInput(2, b"a"), LabStep()):
        lab.apply(command)
        assert not lab.structural(command)
    assert lab.document()["undo"] == undo


# -- guests ----------------------------------------------------------------------------------------
def test_a_moved_guest_goes_on_where_it_was() -> None:
    lab = lab_of(["run=work compute 200000"], [])
    [guest] = guests_of(lab)
    run_to(lab, 200_000)
    before = picture(lab, guest)
    lab.apply(GuestMove(guest, 3))
    assert lab.document()["guests"][0]["host"] == 3
    assert picture(lab, guest)[1:] == before[1:]
    lab.run(100_000)
    assert picture(lab, guest)[0]["instructions"] > before[0]["instructions"]


def test_a_guest_cannot_move_to_another_kind_of_stack() -> None:
    lab = lab_of(["run="])
    lab.apply(HostCreate(stack="bare-metal"))
    [guest] = guests_of(lab)
    host = lab.document()["hosts"][1]["id"]
    assert refused(lab, GuestMove(guest, host))[0] == "move-other-stack"
    assert lab.query(FitsQuery(host, guest=guest))["error"]["key"] == "move-other-stack"


def test_reset_starts_everything_again() -> None:
    lab = lab_of(["run=demo"])
    [guest] = guests_of(lab)
    run_to(lab, 20_000)
    text, digest = console(lab, guest), lab.trace_hash()
    lab.apply(LabReset())
    keyframe = lab.keyframe()
    assert keyframe["status"][str(guest)]["instructions"] == keyframe["time"] == 0
    assert keyframe["history"]["begin"] == lab.position == 20_000
    assert console(lab, guest) == b""
    run_to(lab, 40_000)
    assert console(lab, guest) == text
    assert lab.trace_hash() != digest  # the records carry other positions


def test_power() -> None:
    lab = lab_of(["run=demo"])
    [guest] = guests_of(lab)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = lab.keyframe()["status"][str(guest)]
        return found

    run_to(lab, 5_000)
    lab.apply(GuestPower(guest, "off"))
    assert status()["state"] == 0
    assert lab.run(1_000).steps == 0
    assert refused(lab, ConsoleInput(guest, b"a"))[0] == "guest-not-running"
    lab.apply(GuestPower(guest, "off"))
    lab.apply(GuestPower(guest, "on"))
    assert status()["state"] == 1
    lab.run(5_000)
    count = status()["instructions"]
    lab.apply(GuestPower(guest, "on"))
    assert status()["instructions"] == count
    lab.apply(GuestPower(guest, "reset"))
    assert status()["instructions"] < count


# -- what clients hear -----------------------------------------------------------------------------
def test_ticks_add_up_to_the_keyframe() -> None:
    lab = crowded()
    sums: dict[tuple[int, ...], int] = {}
    text: dict[int, bytes] = {}
    for _ in range(20):
        lab.run(5_000)
        tick = lab.drain()
        for key, count in counted(tick["counts"]).items():
            sums[key] = sums.get(key, 0) + count
        for guest, data in tick["console"]:
            text[guest] = text.get(guest, b"") + data
        sample = np.frombuffer(tick["sample"], RECORD)
        assert len(sample) <= 48
        assert (np.diff(sample["position"].astype(np.int64)) >= 0).all()
    keyframe = lab.keyframe()
    assert counted(keyframe["totals"]) == sums
    assert {guest: data for guest, data in keyframe["console"] if data} == text
    assert sum(counted(lab.drain()["counts"]).values()) == 0


def test_a_tick_after_a_jump_tells_only_what_came_after_it() -> None:
    lab = lab_of(["run=demo"])
    run_to(lab, 60_000)
    lab.apply(LabSeek(30_000))
    totals = counted(lab.keyframe()["totals"])
    tick = lab.drain()
    assert (counted(tick["counts"]), tick["sample"], tick["console"]) == ({}, b"", [])
    lab.run(10_000)
    for key, count in counted(lab.drain()["counts"]).items():
        totals[key] = totals.get(key, 0) + count
    assert counted(lab.keyframe()["totals"]) == totals


def test_a_tick_has_one_entry_for_each_guest_and_host() -> None:
    lab = crowded()
    run_to(lab, 30_000)
    tick, status = lab.drain(), lab.keyframe()["status"]
    widths = {"id": 2, "state": 1, "level": 1, "pc": 8, "instructions": 8, "exits": 8, "ran": 8, "stolen": 8}
    widths |= {"present": 4, "swapped": 4, "ballooned": 4}
    assert {name: len(column) // widths[name] for name, column in tick["guests"].items()} == dict.fromkeys(
        widths, 3
    )
    assert np.frombuffer(tick["guests"]["id"], "<u2").tolist() == guests_of(lab)
    for name, kind in (
        ("instructions", "<u8"),
        ("exits", "<u8"),
        ("pc", "<u8"),
        ("state", "u1"),
        ("level", "u1"),
    ):
        column = np.frombuffer(tick["guests"][name], kind).tolist()
        assert column == [status[str(guest)][name] for guest in guests_of(lab)]
    assert np.frombuffer(tick["hosts"]["busy_permille"], "<u2").max() <= 1000
    assert tick["time"] == np.frombuffer(tick["hosts"]["time"], "<u8").max()


def test_the_end_of_a_guest_is_told_once() -> None:
    lab = Lab.new("a")
    lab.apply(HostCreate())
    guest = lab.apply(GuestCreate(1, "hello"))["guest"]
    lab.run(2_000_000)
    [notice] = lab.drain()["notices"]
    assert (notice["guest"], notice["key"], notice["params"]["status"]) == (guest, "guest-stopped", 0)
    assert lab.drain()["notices"] == []
    assert lab.keyframe()["status"][str(guest)]["exit_status"] == 0


FAULTS = {
    "jump-to-nowhere": "_start: li t0, 0x1000\n jr t0\n",
    "no-trap-handler": "_start: csrw stvec, zero\n .word 0\n",
    "trap-loop": "_start: la t0, handler\n csrw stvec, t0\n .word 0\n .align 2\nhandler: .word 0\n",
}


@pytest.mark.parametrize("key", FAULTS)
@pytest.mark.parametrize("stack", ["bare-metal", *(name for name in TECHNIQUES if name != "paravirtual")])
def test_a_guest_that_destroys_itself_says_why_and_the_others_go_on(key: str, stack: str) -> None:
    lab = Lab.new("a")
    for kind in (stack, "trap-and-emulate"):
        lab.apply(host_create(kind))
    image = lab.apply(ImageAssemble("bad.s", FAULTS[key]))["image"]
    bad = lab.apply(GuestCreate(1, image))["guest"]
    good = lab.apply(GuestCreate(2, "ringos", arguments="run=demo"))["guest"]
    lab.run(100_000)
    [notice] = lab.drain()["notices"]
    assert (notice["guest"], notice["key"], notice["params"]["reason"]) == (bad, "guest-failed", key)
    status = lab.keyframe()["status"]
    assert (status[str(bad)]["state"], status[str(bad)]["failure"]["key"]) == (4, key)
    assert status[str(good)]["instructions"] > 50_000
    lab.apply(GuestPower(bad, "on"))
    assert lab.keyframe()["status"][str(bad)]["failure"] is None


def test_a_guest_that_spins_for_ever_leaves_time_to_the_others() -> None:
    lab = Lab.new("a")
    lab.apply(HostCreate())
    image = lab.apply(ImageAssemble("spin.s", "_start: j _start\n"))["image"]
    lab.apply(GuestCreate(1, image))
    good = lab.apply(GuestCreate(1, "hello"))["guest"]
    lab.run(400_000)
    assert lab.keyframe()["status"][str(good)]["exit_status"] == 0


def test_a_guest_moves_between_techniques_and_comes_back() -> None:
    """Carried by command from trap-and-emulate to hardware assist it goes on, and back again when that is undone."""
    lab = lab_of(["run=work syscall 100000"])
    host = lab.apply(HostCreate(technique="hardware-assist"))["host"]
    [guest] = guests_of(lab)
    lab.run(60_000)
    assert lab.query(FitsQuery(host, guest=guest))["fits"]
    seen = []
    for change in (None, GuestMove(guest, host), LabUndo()):
        if change is not None:
            lab.apply(change)
        lab = Lab.load(lab.save())
        before = lab.keyframe()["status"][str(guest)]
        lab.run(60_000)
        after = lab.keyframe()["status"][str(guest)]
        assert after["instructions"] - before["instructions"] > 20_000
        seen.append(after["exits"] - before["exits"])
    assert seen[1] * 10 < min(seen[0], seen[2])


def test_hardware_assist_says_why_a_machine_mode_guest_does_not_fit() -> None:
    lab = Lab.new("machine mode")
    host = lab.apply(HostCreate(technique="hardware-assist"))["host"]
    other = lab.apply(HostCreate())["host"]
    image = lab.apply(ImageAssemble("firmware", ".org 0x80000000\n_start: j _start\n"))["image"]
    assert lab.query(FitsQuery(host, image=image))["error"]["key"] == "needs-machine-mode"
    with pytest.raises(LabError) as refusal:
        lab.apply(GuestCreate(host, image))
    assert refusal.value.problem.key == "needs-machine-mode"
    guest = lab.apply(GuestCreate(other, image))["guest"]
    assert lab.query(FitsQuery(host, guest=guest))["error"]["key"] == "needs-machine-mode"
    with pytest.raises(LabError):
        lab.apply(GuestMove(guest, host))


def test_shares_and_the_scheduler_are_settings_that_undo_takes_back() -> None:
    lab = Lab.new("shares")
    host = lab.apply(HostCreate(stack="xen"))["host"]
    guests = [lab.apply(GuestCreate(host, "ringos"))["guest"] for _ in range(2)]
    lab.run(50_000)
    lab.apply(GuestShare(guests[0], weight=512, cap=50))
    lab.apply(HostScheduler(host, "fair-share"))
    machine = lab.world.hosts[host]
    assert (machine.scheduler.shares[guests[0]].weight, machine.scheduler.shares[guests[0]].cap) == (512, 50)
    assert type(machine.scheduler).__name__ == "FairShare"
    lab.run(50_000)
    again = Lab.load(lab.save())
    lab.run(100_000)
    again.run(100_000)
    assert lab.trace_hash() == again.trace_hash()
    lab.apply(LabUndo())
    assert type(machine.scheduler).__name__ == "Credit"
    lab.apply(LabUndo())
    assert (machine.scheduler.shares[guests[0]].weight, machine.scheduler.shares[guests[0]].cap) == (256, 0)
    bare = lab.apply(HostCreate(stack="bare-metal"))["host"]
    assert refused(lab, HostScheduler(bare, "credit"))[0] == "host-without-scheduler"
