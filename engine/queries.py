"""Answers to the queries of `engine.commands`: looking at a lab without changing it.

What was true at a past moment (the registers before and after a record) is found by running a scratch world
to that moment from the nearest checkpoint; the lab itself does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from engine.bits import MASK64
from engine.commands import (
    CodeQuery,
    CostsQuery,
    LabError,
    LabQuery,
    LockstepQuery,
    MemoryQuery,
    ProfileId,
    RegistersQuery,
    StretchQuery,
    SymbolsQuery,
    TimelineQuery,
    TraceDetailQuery,
    TraceQuery,
    TranslationQuery,
    WalkQuery,
)
from engine.document import Document, GuestRow
from engine.history import History, Progress, sampled
from engine.hypervisor.binary_translation import BinaryTranslation
from engine.hypervisor.costs import table
from engine.hypervisor.guest import Guest
from engine.hypervisor.host import Host
from engine.hypervisor.stacks import SILENT_SENSITIVE
from engine.hypervisor.translation.cache import Line
from engine.hypervisor.vm_guest import VmGuest
from engine.images import Images
from engine.isa.csrs import csr_fields
from engine.isa.decoder import decode, length_of
from engine.isa.disassembler import disassemble
from engine.isa.silent import imitated
from engine.isa.table import integer_registers
from engine.lockstep import first_difference
from engine.sources import SourceMap, source_map
from engine.trace.record import PATHS
from engine.trace.rings import Trace
from engine.world import World

MAX_MARKS = 2_000
MAX_REPLAY_STEPS = 20_000_000
#: How far apart two checkpoints may lie for the records between them to be derived again.
MAX_DERIVING_STEPS = 40_000_000
#: How long a replay for a stretch may take, and how many records it may give.
MAX_STRETCH_STEPS = 50_000_000
MAX_STRETCH_RECORDS = 100_000
#: How far two machines go in lock-step for one answer.
MAX_LOCKSTEP_INSTRUCTIONS = 2_000_000
#: Lines of source around the current one.
SOURCE_LINES = 40
_PAGE = 4096
#: Extensions whose instructions are sensitive.
_INLINED = ("Zicsr", "privileged", "Svinval")


@dataclass(frozen=True, slots=True)
class Lens:
    """What a query may look at."""

    document: Document
    history: History
    images: Images
    blank_world: Callable[[], World]
    progress: Progress | None

    @property
    def world(self) -> World:
        return self.history.world

    def guest(self, guest: int, vcpu: int = 0) -> Guest:
        row = self.document.guest_of(guest)
        if vcpu >= row.vcpus:
            raise LabError(
                "no-such-vcpu",
                f"{row.name} has no vCPU {vcpu}; it has {row.vcpus}, counted from 0.",
                guest=row.name,
                vcpu=vcpu,
                count=row.vcpus,
            )
        return self.world.guest(guest)

    def sources(self, row: GuestRow) -> SourceMap:
        image = self.document.images.get(row.image) or self.images.common_row(row.image)
        assert image is not None  # it was when the guest was made, and no image goes away
        return source_map(image, self.images.loaded(row.image))


def answer(
    query: LabQuery,
    document: Document,
    history: History,
    images: Images,
    blank_world: Callable[[], World],
    progress: Progress | None,
) -> dict[str, Any]:
    """The result that the query's class describes. Raises LabError."""
    lens = Lens(document, history, images, blank_world, progress)
    match query:
        case TraceQuery():
            return _trace(lens, query)
        case StretchQuery():
            return _stretch(lens, query)
        case TraceDetailQuery():
            return _detail(lens, query)
        case RegistersQuery():
            return _registers(lens, query)
        case MemoryQuery():
            return _memory(lens, query)
        case WalkQuery():
            walk: dict[str, Any] = lens.guest(query.guest, query.vcpu).walk(query.vcpu, query.address)
            return walk
        case CodeQuery():
            return _code(lens, query)
        case TranslationQuery():
            return _translation(lens, query)
        case SymbolsQuery():
            return _symbols(lens, query)
        case TimelineQuery():
            return _timeline(lens, query)
        case LockstepQuery():
            return _lockstep(lens, query)
        case CostsQuery(profile):
            costs = lens.document.costs
            return {
                "profile": costs.profile,
                "profiles": list(get_args(ProfileId)),
                "overrides": costs.overrides,
                "rows": table(profile or costs.profile),
            }
    raise LabError("unknown-query", f"A lab knows no query {type(query).__name__}.")


# -- the trace -------------------------------------------------------------------------------------
def _trace(lens: Lens, query: TraceQuery) -> dict[str, Any]:
    """Records that the ring no longer holds are derived again by replay, within MAX_DERIVING_STEPS."""
    held = lens.world.trace
    totals = {str(guest): held.total(guest) for guest in lens.document.guests}
    if query.guest is None:
        if query.before is not None:
            raise LabError(
                "trace-needs-guest", "Records before a sequence number can only be asked of one guest."
            )
        return {"records": held.latest(query.limit).tobytes(), "first": 0, "total": totals}
    guest = query.guest
    lens.document.guest_of(guest)
    first = lens.history.oldest_record(guest, MAX_DERIVING_STEPS)
    before = held.total(guest) + 1 if query.before is None else min(query.before, held.total(guest) + 1)
    trace = held
    if first < before <= held.first(guest):
        derived = lens.history.trace_with(guest, before - 1, lens.blank_world, lens.progress)
        if derived is None:
            raise LabError("cancelled", "The replay was cancelled.")
        trace = derived
    return {
        "records": trace.records(guest, before, query.limit).tobytes(),
        "first": first,
        "total": totals,
    }


def _stretch(lens: Lens, query: StretchQuery) -> dict[str, Any]:
    history = lens.history
    if query.guest is not None:
        lens.document.guest_of(query.guest)
    begin = min(max(query.begin, history.begin), history.end)
    end = min(max(query.end, begin), history.end)
    if history.replay_steps(begin) + end - begin > MAX_STRETCH_STEPS:
        raise LabError(
            "stretch-too-long",
            f"The stretch takes more than {MAX_STRETCH_STEPS} steps to run again; choose a shorter one.",
            limit=MAX_STRETCH_STEPS,
        )
    records = history.records(begin, end, lens.blank_world(), MAX_STRETCH_RECORDS, lens.progress)
    if records is None:
        raise LabError("cancelled", "The replay was cancelled.")
    if len(records) > MAX_STRETCH_RECORDS:
        raise LabError(
            "stretch-too-full",
            f"The stretch has more than {MAX_STRETCH_RECORDS} traps; choose a shorter one.",
            limit=MAX_STRETCH_RECORDS,
        )
    if query.guest is not None:
        records = records[records["guest"] == query.guest]
    return {"records": records.tobytes(), "begin": begin, "end": end}


def _detail(lens: Lens, query: TraceDetailQuery) -> dict[str, Any]:
    """Registers are None for a record that nothing is left to derive from, or only with a long replay.

    A query must not hold up the other labs; going there (`lab.seek`) shows them however far it is.
    """
    record = _record(lens, query.guest, query.sequence)
    row = lens.document.guest_of(query.guest)
    position, vcpu, pc = int(record["position"]), int(record["vcpu"]), int(record["pc"])
    before = after = physical = None
    history = lens.history
    if history.begin <= position < history.end and history.replay_steps(position) <= MAX_REPLAY_STEPS:
        player = history.scratch(position, lens.blank_world(), lens.progress)
        if player is None:
            raise LabError("cancelled", "The replay was cancelled.")
        machine = player.world.guest(query.guest)
        before = machine.registers(vcpu)
        physical = _physical(machine, vcpu, pc)
        player.run(1)
        after = machine.registers(vcpu)
    word = int(record["instruction"])
    sources = lens.sources(row)
    path = PATHS[int(record["path"])]
    return {
        "instruction": disassemble(word, pc) if word else "",
        "symbol": _symbol(sources, pc, physical),
        "source": _source_line(sources, pc, physical),
        "before": before,
        "after": after,
        "changed": [] if before is None or after is None else _changed(before, after),
        "crossings": [
            {
                "from": int(leg.begin), "to": int(leg.end), "cycles": leg.cycles, "source": leg.row.source,
                "note": "overridden" if leg.overridden else leg.row.note, "verified": leg.row.verified,
            }
            for leg in lens.world.hosts[row.host].routes.legs(path)
        ],
    }


def _record(lens: Lens, guest: int, sequence: int) -> np.void:
    lens.document.guest_of(guest)
    ahead = lens.history.future()
    for records in (lens.world.trace.records(guest, sequence + 1, 1), ahead[ahead["guest"] == guest]):
        found = records[records["sequence"] == sequence]
        if len(found):
            record: np.void = found[-1]
            return record
    raise LabError(
        "record-gone",
        f"Record {sequence} of this guest is not held any more (or not yet written).",
        guest=guest,
        sequence=sequence,
    )


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = ["pc"] if before["pc"] != after["pc"] else []
    names += [f"x{index}" for index in range(32) if before["x"][index] != after["x"][index]]
    return names + [name for name, value in before["csrs"].items() if after["csrs"].get(name) != value]


def _timeline(lens: Lens, query: TimelineQuery) -> dict[str, Any]:
    world, history = lens.world, lens.history
    if query.guest is not None:
        lens.document.guest_of(query.guest)
    chosen = list(lens.document.guests) if query.guest is None else [query.guest]
    past = [world.trace.records(guest, None, MAX_MARKS) for guest in chosen]
    ahead = history.future()
    marks = np.concatenate([*past, ahead[np.isin(ahead["guest"], chosen)]])
    marks = marks[marks["position"] >= history.begin]
    marks = marks[np.argsort(marks["position"], kind="stable")]
    near = MAX_MARKS // 2  # the latest are all there, what lies farther back is sampled
    marks = np.concatenate([sampled(marks[:-near], MAX_MARKS - near), marks[-near:]])
    columns = [
        marks[name].tolist() for name in ("position", "time", "guest", "kind", "disposition", "sequence")
    ]
    return {
        "begin": history.begin,
        "end": history.end,
        "position": world.position,
        "marks": [list(mark) for mark in zip(*columns, strict=True)],
    }


def _lockstep(lens: Lens, query: LockstepQuery) -> dict[str, Any]:
    row = lens.document.guest_of(query.guest)
    host = lens.document.hosts[row.host]
    if SILENT_SENSITIVE not in host.switches:
        return {"instructions": 0, "ended": False, "difference": None}
    switches = tuple(name for name in host.switches if name != SILENT_SENSITIVE)
    image = lens.images.loaded(row.image)
    reference, other = (
        Host(host.id, 1, host.memory_mib, configuration, Trace(), _unheard)
        for configuration in (host.configuration.with_switches(switches), host.configuration)
    )
    for machine in (reference, other):
        machine.add_guest(row.id, image, 1, row.memory_mib, row.arguments)
    comparison = first_difference(reference, other, MAX_LOCKSTEP_INSTRUCTIONS, lens.progress)
    if comparison is None:
        raise LabError("cancelled", "The comparison was cancelled.")
    found, difference = comparison.difference, None
    if found is not None:
        sources = lens.sources(row)
        difference = {
            "pc": found.pc,
            "instruction": disassemble(found.instruction, found.pc),
            "symbol": _symbol(sources, found.pc, found.physical),
            "source": _source_line(sources, found.pc, found.physical),
            "x86": imitated(found.instruction),
            "values": [list(value) for value in found.values],
        }
    return {"instructions": comparison.instructions, "ended": comparison.ended, "difference": difference}


def _unheard(_guest: int, _output: bytes) -> None:
    """Nobody reads what a guest prints that runs to be compared."""


# -- registers, memory, code -----------------------------------------------------------------------
def _registers(lens: Lens, query: RegistersQuery) -> dict[str, Any]:
    machine = lens.guest(query.guest, query.vcpu)
    registers = machine.registers(query.vcpu)
    word = _word(machine, query.vcpu, registers["pc"])
    instruction = None if word is None else decode(word)
    operands = {}
    if word is not None and instruction is not None:
        integers = integer_registers(instruction)
        operands = {name: number for name, number in instruction.operands(word).items() if name in integers}
    return {
        **registers,
        "fields": {
            name: [list(field) for field in csr_fields(name, value)]
            for name, value in registers["csrs"].items()
        },
        "written": [operands["rd"]] if operands.get("rd") else [],
        "read": sorted({operands[name] for name in ("rs1", "rs2") if operands.get(name)}),
        "instruction": "" if word is None else disassemble(word, registers["pc"]),
    }


def _memory(lens: Lens, query: MemoryQuery) -> dict[str, Any]:
    """Unmapped pages read as zeros; `mapped` tells which they are."""
    machine = lens.guest(query.guest, query.vcpu)
    end = min(query.address + query.length, 1 << 64)
    content, mapped = bytearray(), []
    address = query.address
    while address < end:
        length = min(end, (address | (_PAGE - 1)) + 1) - address
        part = machine.read(query.vcpu, address, length, query.physical)
        mapped.append(part is not None)
        content += bytes(length) if part is None else part
        address += length
    return {"address": query.address, "bytes": bytes(content), "mapped": mapped}


def _code(lens: Lens, query: CodeQuery) -> dict[str, Any]:
    machine = lens.guest(query.guest, query.vcpu)
    sources = lens.sources(lens.document.guest_of(query.guest))
    pc = machine.registers(query.vcpu)["pc"]
    if query.address is None:
        first = centre = pc
        for _ in range(query.rows // 4):
            first = _before(machine, query.vcpu, first)
    else:
        first = centre = query.address & ~1
    rows = []
    for address, word in _instructions(machine, query.vcpu, first, query.rows):
        physical = _physical(machine, query.vcpu, address)
        place = sources.place(address, physical)
        rows.append(
            {
                "address": address,
                "encoding": word,
                "text": disassemble(word, address),
                "symbol": _symbol(sources, address, physical),
                "file": place.file if place else None,
                "line": place.line if place else None,
            }
        )
    return {
        "pc": pc,
        "rows": rows,
        "source": _source_around(sources, centre, _physical(machine, query.vcpu, centre)),
    }


def _translation(lens: Lens, query: TranslationQuery) -> dict[str, Any]:
    machine = lens.guest(query.guest, query.vcpu)
    sources = lens.sources(lens.document.guest_of(query.guest))
    pc = machine.registers(query.vcpu)["pc"]
    technique = machine.technique if isinstance(machine, VmGuest) else None
    if not isinstance(technique, BinaryTranslation):
        return {"pc": pc, "counts": None, "block": None}
    found = technique.translation(query.vcpu, query.address)
    block = None
    if found is not None:
        rows = []
        for line in found.lines:
            word = _word(machine, query.vcpu, line.pc)
            rows.append(
                {
                    "address": line.pc,
                    "text": "" if word is None else disassemble(word, line.pc),
                    "symbol": _symbol(sources, line.pc, _physical(machine, query.vcpu, line.pc)),
                    "how": _how(word, line),
                    "host": _host_code(line.host),
                }
            )
        block = {"pc": found.pc, "end": found.end, "rows": rows, "stubs": _host_code(found.stubs)}
    cache = technique.cache
    return {"pc": pc, "counts": {**vars(cache.counts), "bytes": cache.bytes_used}, "block": block}


def _how(word: int | None, line: Line) -> str:
    """What became of a guest instruction, as TranslationQuery says."""
    if line.call_out:
        return "call_out"
    if [word] == [encoding for _, encoding in line.host]:
        return "copied"
    row = None if word is None else decode(word)
    return "inline" if row is not None and row.extension in _INLINED else "rewritten"


def _host_code(code: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    return [{"address": address, "text": disassemble(word, address)} for address, word in code]


def _symbols(lens: Lens, query: SymbolsQuery) -> dict[str, Any]:
    machine = lens.guest(query.guest)
    sources = lens.sources(lens.document.guest_of(query.guest))
    return {
        "places": [_symbol(sources, address, _physical(machine, 0, address)) for address in query.addresses],
        "address": None if query.name is None else sources.address(query.name),
    }


def _word(machine: Guest, vcpu: int, address: int) -> int | None:
    """The instruction at an address, 2 or 4 bytes; None where it cannot be read."""
    halves = machine.read(vcpu, address, 2, False)
    if halves is not None and length_of(halves[0]) == 4:
        rest = machine.read(vcpu, (address + 2) & MASK64, 2, False)
        halves = None if rest is None else halves + rest
    return None if halves is None else int.from_bytes(halves, "little")


def _instructions(machine: Guest, vcpu: int, address: int, count: int) -> Iterator[tuple[int, int]]:
    """(address, encoding) of up to `count` instructions from `address` on; what cannot be read is skipped."""
    for _ in range(count):
        if address > MASK64:
            return
        word = _word(machine, vcpu, address)
        if word is not None:
            yield address, word
        address += 4 if word is None else length_of(word)


def _before(machine: Guest, vcpu: int, address: int) -> int:
    """Where the instruction before `address` probably begins: code cannot be read backwards, so 4 bytes
    before if that begins a whole one, else 2."""
    word = _word(machine, vcpu, max(0, address - 4))
    return max(0, address - (2 if word is not None and length_of(word) == 2 else 4))


def _physical(machine: Guest, vcpu: int, address: int) -> int | None:
    gpa: int | None = machine.walk(vcpu, address)["gpa"]
    return gpa


def _symbol(sources: SourceMap, address: int, physical: int | None) -> str | None:
    found = sources.symbol(address, physical)
    if found is None:
        return None
    name, offset = found
    return f"{name}+{offset:#x}" if offset else name


def _source_line(sources: SourceMap, address: int, physical: int | None) -> dict[str, Any] | None:
    place = sources.place(address, physical)
    if place is None:
        return None
    text = sources.text(place.file)
    if not 1 <= place.line <= len(text):
        return None
    return {"file": place.file, "line": place.line, "text": text[place.line - 1]}


def _source_around(sources: SourceMap, address: int, physical: int | None) -> dict[str, Any] | None:
    line = _source_line(sources, address, physical)
    if line is None:
        return None
    first = max(1, line["line"] - SOURCE_LINES // 2)
    lines = sources.text(line["file"])[first - 1 : first - 1 + SOURCE_LINES]
    return {"file": line["file"], "line": line["line"], "first": first, "lines": lines}
