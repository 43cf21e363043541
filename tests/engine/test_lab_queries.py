"""Looking at a lab: answers agree with each other and with the images, and looking changes nothing."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
import pytest

from engine import guests
from engine.commands import (
    CodeQuery,
    CostsQuery,
    FitsQuery,
    GuestCreate,
    HostCreate,
    ImageAssemble,
    LabError,
    LabQuery,
    LabSeek,
    LabStep,
    MemoryQuery,
    RegistersQuery,
    SnapshotTake,
    SymbolsQuery,
    TimelineQuery,
    TraceDetailQuery,
    TraceQuery,
    TranslationQuery,
    WalkQuery,
)
from engine.lab import Lab
from engine.trace.record import RECORD, Kind
from tests.support.labs import crowded, guests_of, lab_of, registers, run_to


@pytest.fixture(scope="module")
def booted() -> Lab:
    """One ringos that has got far enough to run user programs on page tables."""
    lab = lab_of(["run=work syscall 100000"])
    [guest] = guests_of(lab)
    for _ in range(60):
        run_to(lab, lab.position + 20_000)
        records = np.frombuffer(lab.query(TraceQuery(guest, limit=1000))["records"], RECORD)
        if (records["kind"] == Kind.SYSCALL).sum() > 50:
            return lab
    raise AssertionError("ringos made no system calls in 1.2 M steps")


def records_of(lab: Lab, guest: int, limit: int = 1000) -> Any:
    return np.frombuffer(lab.query(TraceQuery(guest, limit=limit))["records"], RECORD)


def at_level(lab: Lab, guest: int, level: int) -> dict[str, Any]:
    """Step until the guest is about to run at this level; its registers there."""
    for _ in range(200):
        found: dict[str, Any] = lab.query(RegistersQuery(guest))
        if found["level"] == level:
            return found
        lab.apply(LabStep())
    raise AssertionError(f"the guest was never at level {level}")


@pytest.mark.parametrize("kind", get_args(LabQuery), ids=lambda kind: kind.__struct_config__.tag)
def test_every_query_has_an_answer_that_can_be_sent_and_changes_nothing(
    booted: Lab, kind: type[LabQuery]
) -> None:
    values = {
        "guest": 2,
        "sequence": int(records_of(booted, 2, 1)[0]["sequence"]),
        "host": 1,
        "address": 0x80200000,
        "image": booted.apply(SnapshotTake(2))["image"],
        "begin": booted.position - 1000,
        "end": booted.position,
    }
    required = [field.name for field in msgspec.structs.fields(kind) if field.required]
    before = booted.save()
    answer = booted.query(kind(**{name: values[name] for name in required}))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer)) == answer
    assert booted.save() == before


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (TraceQuery(9), "no-such-guest"),
        (TraceQuery(None, before=5), "trace-needs-guest"),
        (TraceDetailQuery(2, 10**9), "record-gone"),
        (RegistersQuery(9), "no-such-guest"),
        (RegistersQuery(2, vcpu=3), "no-such-vcpu"),
        (MemoryQuery(9, 0), "no-such-guest"),
        (WalkQuery(9, 0), "no-such-guest"),
        (CodeQuery(9), "no-such-guest"),
        (TimelineQuery(9), "no-such-guest"),
        (FitsQuery(9), "no-such-host"),
        (FitsQuery(1, image="nope"), "no-such-image"),
    ],
)
def test_refusals(booted: Lab, query: LabQuery, key: str) -> None:
    with pytest.raises(LabError) as caught:
        booted.query(query)
    assert caught.value.problem.key == key
    assert caught.value.problem.message


def test_records_can_be_read_backwards(booted: Lab) -> None:
    latest = booted.query(TraceQuery(2, limit=100))
    sequences = np.frombuffer(latest["records"], RECORD)["sequence"]
    assert sequences.tolist() == list(range(latest["total"]["2"] - 99, latest["total"]["2"] + 1))
    older = booted.query(TraceQuery(2, before=int(sequences[0]), limit=10))
    assert np.frombuffer(older["records"], RECORD)["sequence"].tolist() == list(
        range(sequences[0] - 10, sequences[0])
    )
    nothing = booted.query(TraceQuery(2, before=latest["first"]))
    assert nothing["records"] == b""


def test_detail_is_what_stepping_shows(booted: Lab) -> None:
    """Registers before and after a record: those of the lab itself, brought there."""
    lab = Lab.load(booted.save())
    for record in records_of(lab, 2, 30)[::7]:
        detail = lab.query(TraceDetailQuery(2, int(record["sequence"])))
        visitor = Lab.load(lab.save())
        visitor.apply(LabSeek(int(record["position"])))
        for when in ("before", "after"):
            seen = registers(visitor, 2)
            assert detail[when] == {name: seen[name] for name in detail[when]}
            visitor.run(1)
        if detail["instruction"]:
            assert detail["before"]["pc"] == record["pc"]
        assert detail["changed"]
        assert all(
            name == "pc" or name[0] == "x" or name in detail["before"]["csrs"] for name in detail["changed"]
        )


def test_a_record_before_the_history_keeps_its_instruction() -> None:
    lab = lab_of(["run="])
    run_to(lab, 30_000)
    lab.apply(HostCreate())
    record = next(row for row in records_of(lab, 2)[::-1] if row["instruction"])
    detail = lab.query(TraceDetailQuery(2, int(record["sequence"])))
    assert detail["before"] is detail["after"] is None
    assert detail["instruction"]


def test_code_at_pc_has_symbol_and_source(booted: Lab) -> None:
    lab = Lab.load(booted.save())
    kernel = at_level(lab, 2, 2)
    code = lab.query(CodeQuery(2))
    row = next(row for row in code["rows"] if row["address"] == kernel["pc"])
    assert row["text"] == kernel["instruction"]
    source = code["source"]
    assert (row["file"], row["line"]) == (source["file"], source["line"])
    whole = guests.source_text("ringos", source["file"]).splitlines()
    assert source["lines"] == whole[source["first"] - 1 :][: len(source["lines"])]
    assert source["first"] <= source["line"] < source["first"] + len(source["lines"])


def test_user_code_is_known_by_its_program(booted: Lab) -> None:
    lab = Lab.load(booted.save())
    user = at_level(lab, 2, 0)
    [place] = lab.query(SymbolsQuery(2, [user["pc"]]))["places"]
    program, _, name = place.partition(":")
    assert program in guests.program_symbols("ringos")
    source = lab.query(CodeQuery(2))["source"]
    assert source["file"].startswith(("user/", "common/"))
    start = lab.query(SymbolsQuery(2, name=place.partition("+")[0]))["address"]
    assert start + int(place.partition("+")[2] or "0", 16) == user["pc"]
    assert name


def test_memory_is_the_image(booted: Lab) -> None:
    """The kernel's first instructions, physical and virtual, are those of the file."""
    image = guests.load_image("ringos")
    start = booted.query(MemoryQuery(2, 0x80200000, 64, physical=True))
    assert start["bytes"] in image
    assert start["mapped"] == [True]
    lab = Lab.load(booted.save())
    at_level(lab, 2, 2)
    assert lab.query(MemoryQuery(2, 0x80200000, 64))["bytes"] == start["bytes"]


def test_unmapped_memory_reads_as_nothing(booted: Lab) -> None:
    answer = booted.query(MemoryQuery(2, 0x7FFFF000 - 8, 16))
    assert answer == {"address": 0x7FFFF000 - 8, "bytes": bytes(16), "mapped": [False, False]}
    end = booted.query(MemoryQuery(2, 2**64 - 16, 256))
    assert len(end["bytes"]) == 16


def test_walk_finds_what_memory_reads(booted: Lab) -> None:
    lab = Lab.load(booted.save())
    pc = at_level(lab, 2, 0)["pc"]
    walk = lab.query(WalkQuery(2, pc))
    assert walk["fault"] is None
    assert walk["references"]["guest"] == len(walk["guest"]) == 3
    assert walk["guest"][-1]["leaf"]
    virtual = lab.query(MemoryQuery(2, pc, 16))["bytes"]
    assert lab.query(MemoryQuery(2, walk["gpa"], 16, physical=True))["bytes"] == virtual
    unmapped = lab.query(WalkQuery(2, 0))
    assert unmapped["gpa"] is None
    assert unmapped["fault"]
    assert unmapped["tlb"] == {"load": False, "store": False, "fetch": False}


def test_registers_name_what_the_instruction_reads_and_writes(booted: Lab) -> None:
    found = booted.query(RegistersQuery(2))
    assert len(found["x"]) == 32
    assert found["x"][0] == 0
    assert set(found["fields"]) == set(found["csrs"])
    assert [name for name, _ in found["fields"]["satp"]] == ["MODE", "ASID", "PPN"]
    satp = dict(found["fields"]["satp"])
    assert satp["MODE"] << 60 | satp["ASID"] << 44 | satp["PPN"] == found["csrs"]["satp"]
    assert 0 not in found["written"] + found["read"]


def test_timeline_marks_every_record(booted: Lab) -> None:
    answer = booted.query(TimelineQuery(2))
    held = records_of(booted, 2)
    assert len(answer["marks"]) <= 2_000
    assert answer["marks"][-1][0] == held[-1]["position"]
    assert [mark[0] for mark in answer["marks"]] == sorted(mark[0] for mark in answer["marks"])
    crowd = crowded()
    run_to(crowd, 400_000)
    assert {mark[2] for mark in crowd.query(TimelineQuery())["marks"]} == set(guests_of(crowd))


def test_an_assembled_program_shows_its_own_source() -> None:
    lab = Lab.new("a")
    lab.apply(HostCreate())
    source = "# mine\n_start:\n    li a0, 5\n    addi a0, a0, 1\nforever:\n    j forever\n"
    image = lab.apply(ImageAssemble("mine.s", source))["image"]
    guest = lab.apply(GuestCreate(1, image))["guest"]
    code = lab.query(CodeQuery(guest))
    assert (code["source"]["file"], code["source"]["line"]) == ("mine.s", 3)
    assert code["source"]["lines"] == source.splitlines()
    assert lab.query(SymbolsQuery(guest, name="forever"))["address"] == code["pc"] + 8
    assert lab.query(SymbolsQuery(guest, [code["pc"] + 4]))["places"] == ["_start+0x4"]


def test_every_modelled_cost_names_its_source() -> None:
    rows = Lab.new("a").query(CostsQuery())["rows"]
    assert rows
    assert all(row["cycles"] > 0 and row["source"] for row in rows)


def test_records_that_the_ring_no_longer_holds_are_derived_again() -> None:
    """Every record of a long run comes back, byte for byte as it was when it was written."""
    lab = lab_of(["run=work syscall 100000"], ["run=demo"])
    [guest, _] = guests_of(lab)
    seen: dict[int, bytes] = {}
    while len(seen) < 9_000:
        run_to(lab, lab.position + 10_000)
        for record in records_of(lab, guest):
            seen[int(record["sequence"])] = record.tobytes()
    assert sorted(seen) == list(range(1, len(seen) + 1))
    before, derived, hash_before = None, {}, lab.trace_hash()
    while records := lab.query(TraceQuery(guest, before=before, limit=1000))["records"]:
        page = np.frombuffer(records, RECORD)
        derived |= {int(record["sequence"]): record.tobytes() for record in page}
        before = int(page["sequence"][0])
    assert derived == seen
    assert lab.query(TraceQuery(guest))["first"] == 1
    assert lab.trace_hash() == hash_before


def test_guest_code_is_read_beside_its_translation() -> None:
    lab = lab_of(["run=work syscall 100000"], configuration="binary-translation")
    [guest] = guests_of(lab)
    run_to(lab, 150_000)
    digest = lab.trace_hash()
    found = lab.query(TranslationQuery(guest))
    assert found["counts"]["blocks"] > 100
    handler = registers(lab, guest)["csrs"]["stvec"]
    rows = lab.query(TranslationQuery(guest, handler))["block"]["rows"]
    code = lab.query(CodeQuery(guest, handler, rows=len(rows)))["rows"]
    assert [(row["address"], row["text"]) for row in rows] == [(row["address"], row["text"]) for row in code]
    hows = {row["text"].split()[0]: row["how"] for row in rows}
    assert hows["csrrw"] == "inline"
    assert hows["sd"] == "copied"
    assert rows[0]["symbol"] == "trap_entry"
    copied = [row for row in rows if row["how"] == "copied"]
    assert all([line["text"] for line in row["host"]] == [row["text"]] for row in copied)
    host = [line["address"] for row in rows for line in row["host"]]
    assert host == sorted(set(host))
    assert lab.query(TranslationQuery(guest, 0x1000))["block"] is None
    assert lab.trace_hash() == digest


def test_nothing_is_translated_under_other_techniques(booted: Lab) -> None:
    assert booted.query(TranslationQuery(guests_of(booted)[0])) | {"pc": 0} == {"pc": 0, "counts": None, "block": None}
