"""Image loading: against readelf, on the guests, and on every way we know to break a file."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import guests
from engine.commands import LabError
from engine.machine.loader import LoadedImage, Symbols, check_fits, inspect, with_disk, with_firmware, with_initrd

MIB = 1 << 20
CODE = bytes.fromhex("13000000 6f000000")


@dataclass
class Elf:
    """A well-formed ELF file whose every field a test can spoil. Segments: (vaddr, paddr, data, memory
    size).
    """

    segments: list[tuple[int, int, bytes, int]] = field(
        default_factory=lambda: [(0x80200000, 0x80200000, CODE, 0x1000)]
    )
    entry: int = 0x80200000
    ident: bytes = b"\x7fELF\2\1\1" + bytes(9)
    kind: int = 2
    machine: int = 243
    flags: int = 0
    entry_size: int = 56
    header_types: tuple[int, ...] = ()
    symbols: dict[str, tuple[int, int]] = field(default_factory=dict)  # name: (value, type)
    strings_link: int = 2
    file_size: int | None = None

    def build(self) -> bytes:
        count = len(self.segments) + len(self.header_types)
        data = bytearray()
        headers = [struct.pack("<IIQQQQQQ", kind, 4, 0, 0, 0, 0, 0, 8) for kind in self.header_types]
        at = 64 + 56 * count
        for virtual, physical, content, memory in self.segments:
            size = len(content) if self.file_size is None else self.file_size
            headers.append(struct.pack("<IIQQQQQQ", 1, 5, at + len(data), virtual, physical, size, memory, 8))
            data += content
        strings, table = bytearray(b"\0"), bytearray(24)
        for name, (value, kind) in self.symbols.items():
            table += struct.pack("<IBBHQQ", len(strings), 0x10 | kind, 0, 1, value, 0)
            strings += name.encode() + b"\0"
        body = at + len(data)
        sections = b""
        if self.symbols:
            sections = b"".join(
                struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, offset, size, link, 0, 8, 24)
                for kind, offset, size, link in (
                    (0, 0, 0, 0),
                    (2, body, len(table), self.strings_link),
                    (3, body + len(table), len(strings), 0),
                )
            )
            data += table + strings
        header = self.ident + struct.pack(
            "<HHIQQQIHHHHHH", self.kind, self.machine, 1, self.entry, 64, at + len(data) if sections else 0,
            self.flags, 64, self.entry_size, count, 64, 3 if sections else 0, 0,
        )  # fmt: skip
        return header + b"".join(headers) + bytes(data) + sections


def _refusal(content: bytes, **options: int) -> LabError:
    with pytest.raises(LabError) as caught:
        inspect(content, "guest.elf", **options)
    problem = caught.value.problem
    assert problem.params["image"] == "guest.elf"
    assert "guest.elf" in problem.message
    assert problem.message.endswith(".")
    return caught.value


# -- well-formed files -----------------------------------------------------------------------------
def test_elf() -> None:
    image = inspect(Elf(symbols={"_start": (0x80200000, 2), "tohost": (0x80200800, 1)}).build(), "guest.elf")
    assert (image.kind, image.entry, image.start_mode) == ("elf", 0x80200000, "S")
    assert [(s.address, s.data, s.memory_size, s.executable) for s in image.segments] == [
        (0x80200000, CODE, 0x1000, True)
    ]
    assert image.tohost == 0x80200800
    assert image.memory_needed == 2 * MIB + 0x1000
    assert image.symbols.lookup(0x80200004) == ("_start", 4)


def test_a_kernel_linked_at_the_start_of_ram_starts_in_m_mode() -> None:
    for address, mode in ((0x80000000, "M"), (0x801FFFFC, "M"), (0x80200000, "S"), (0x80400000, "S")):
        elf = Elf(segments=[(address, address, CODE, 8)], entry=address)
        assert inspect(elf.build(), "k").start_mode == mode


def test_virtual_addresses_move_with_their_segment() -> None:
    """A kernel linked high (p_vaddr) and loaded low (p_paddr): entry and tohost become physical, symbols
    do not.
    """
    high = 0xFFFFFFFF80000000
    elf = Elf(
        segments=[(high, 0x80200000, CODE, 0x2000)],
        entry=high + 4,
        symbols={"tohost": (high + 0x1000, 1), "main": (high + 4, 2)},
    )
    image = inspect(elf.build(), "k")
    assert (image.entry, image.tohost) == (0x80200004, 0x80201000)
    assert image.symbols.lookup(high + 8) == ("main", 4)
    elf.entry = 0x80200004
    assert inspect(elf.build(), "k").entry == 0x80200004


def test_empty_segments_and_foreign_headers_are_skipped() -> None:
    elf = Elf(header_types=(0x70000003, 0x6474E551))
    elf.segments.append((0, 0, b"", 0))
    assert len(inspect(elf.build(), "k").segments) == 1


def test_symbols() -> None:
    symbols = Symbols({"b": 0x20, "a": 0x10, "alias": 0x10}, end=0x30)
    assert symbols.lookup(0xF) is None
    assert symbols.lookup(0x10) == ("a", 0)
    assert symbols.lookup(0x1F) == ("a", 15)
    assert symbols.lookup(0x2F) == ("b", 15)
    assert symbols.lookup(0x30) is None
    assert (symbols.address("alias"), symbols.address("c")) == (0x10, None)
    assert list(symbols) == [(0x10, "a"), (0x20, "b")]
    assert len(symbols) == 3


def test_mapping_symbols_and_file_names_are_no_symbols() -> None:
    elf = Elf(symbols={"$x": (0x80200000, 0), ".L1": (0x80200000, 0), "main.c": (0, 4), "f": (0x80200004, 2)})
    assert list(inspect(elf.build(), "k").symbols) == [(0x80200004, "f")]


@pytest.mark.parametrize("name", [guest.name for guest in guests.guests()])
def test_guests_load_as_readelf_sees_them(name: str, tmp_path: Path) -> None:
    content = guests.load_image(name)
    image = inspect(content, name)
    path = tmp_path / name
    path.write_bytes(content)
    if shutil.which("riscv64-linux-gnu-readelf") is None:
        raise RuntimeError("readelf is missing. Install it: apt install binutils-riscv64-linux-gnu")
    text = subprocess.run(
        ["riscv64-linux-gnu-readelf", "-lsW", path], capture_output=True, check=True, text=True
    ).stdout
    loads = re.findall(r"^\s+LOAD\s+\S+\s+\S+\s+(\S+)\s+(\S+)\s+(\S+)", text, re.M)
    assert [(s.address, len(s.data), s.memory_size) for s in image.segments] == sorted(
        tuple(int(number, 16) for number in load) for load in loads if int(load[2], 16)
    )
    entry = re.search(r"Entry point (\S+)", text)
    assert entry is not None
    assert image.entry == int(entry[1], 16)
    for value, symbol in re.findall(r"^\s+\d+: (\w+)\s+\S+ FUNC\s+GLOBAL DEFAULT\s+\d+ (\S+)$", text, re.M):
        assert image.symbols.address(symbol) == int(value, 16)
    check_fits(image, guests.guest(name).memory_mib * MIB)


def _image_header(offset: int = 0x200000, size: int = 0x3000, flags: int = 0) -> bytes:
    return struct.pack("<IIQQQIIQQII", 0x6F, 0, offset, size, flags, 2, 0, 0, 0x5643534952, 0x05435352, 0)


def test_image() -> None:
    image = inspect(_image_header() + bytes(100), "Image")
    assert (image.kind, image.entry, image.start_mode) == ("image", 0x80200000, "S")
    assert image.segments[0].memory_size == 0x3000
    assert image.memory_needed == 2 * MIB + 0x3000
    assert inspect(_image_header(size=0) + bytes(100), "Image").segments[0].memory_size == 164
    assert inspect(_image_header(), "Image", address=0x80400000).entry == 0x80400000


def test_flat() -> None:
    image = inspect(CODE, "flat.bin")
    assert (image.kind, image.entry, image.start_mode, image.memory_needed) == ("flat", 0x80000000, "M", 8)
    moved = inspect(CODE, "flat.bin", address=0x80200000)
    assert (moved.entry, moved.start_mode) == (0x80200000, "S")


def test_a_kernel_is_not_copied() -> None:
    content = memoryview(_image_header() + bytes(100))
    initrd = memoryview(b"070701")
    image = with_initrd(inspect(content, "Image"), initrd)
    assert image.segments[0].data is content
    assert image.initrd is initrd
    assert image.memory_needed > 2 * MIB + 0x3000 + len(initrd)


def test_a_disk_is_kept_as_it_is() -> None:
    content = memoryview(b"plain content")
    image = inspect(CODE, "flat")
    assert image.disk is None
    assert with_disk(image, content, "disk.raw").disk is content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "The disk d is empty"),
        (b"QFI\xfb" + bytes(100), "in the format qcow2, and a disk must be its plain content"),
        (b"KDMV" + bytes(100), "VMDK"),
        (b"vhdxfile" + bytes(100), "VHDX"),
        (b"\xfd7zXZ" + bytes(100), "xz.*or unpack it"),
    ],
)
def test_what_is_no_disk_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(LabError, match=why):
        with_disk(inspect(CODE, "flat"), content, "d")


def test_firmware_starts_and_the_kernel_is_next() -> None:
    image = with_firmware(inspect(_image_header(), "Image"), inspect(CODE, "fw.bin"))
    assert (image.entry, image.start_mode, image.next_entry) == (0x80000000, "M", 0x80200000)
    assert [segment.address for segment in image.segments] == [0x80000000, 0x80200000]


def test_what_cannot_be_combined_is_refused() -> None:
    kernel, flat = inspect(_image_header(), "Image"), inspect(CODE, "flat")
    with pytest.raises(LabError, match="is empty"):
        with_initrd(kernel, b"")
    with pytest.raises(LabError, match="in M mode and takes no initial RAM disk"):
        with_initrd(flat, b"070701")
    for image, firmware in ((kernel, kernel), (flat, flat)):
        with pytest.raises(LabError, match="firmware starts in M mode"):
            with_firmware(image, firmware)
    with pytest.raises(LabError, match="into Image, which begins at 0x80200000"):
        with_firmware(kernel, inspect(bytes(2 * MIB + 1), "large.bin"))


# -- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("elf", "key", "words"),
    [
        (Elf(ident=b"\x7fELF\1\1\1" + bytes(9)), "elf-class", "rv64"),
        (Elf(ident=b"\x7fELF\2\2\1" + bytes(9)), "elf-endianness", "little-endian"),
        (Elf(machine=62), "elf-machine", "x86-64"),
        (Elf(machine=999), "elf-machine", "e_machine 999"),
        (Elf(flags=0xF), "elf-extensions", r"lacks: Q, E\. .*-march=rv64gc -mabi=lp64d"),
        (Elf(kind=3), "elf-type", "-no-pie"),
        (Elf(kind=1), "elf-type", "ET_REL"),
        (Elf(header_types=(3,)), "elf-dynamic", "dynamically linked"),
        (Elf(header_types=(2,)), "elf-dynamic", "dynamically linked"),
        (Elf(entry_size=32), "elf-entry-size", "56"),
        (Elf(segments=[]), "elf-nothing-to-load", "PT_LOAD"),
        (Elf(entry=0x80300000), "elf-entry", "0x80300000"),
        (Elf(entry=0x80200001), "image-entry-misaligned", "multiples of 2"),
        (Elf(segments=[(0x1000, 0x1000, CODE, 8)], entry=0x1000), "image-outside-ram", "0x80000000"),
        (Elf(segments=[(0x80200000, 2**64 - 4, CODE, 8)]), "image-outside-ram", "outside RAM"),
        (Elf(segments=[(0x80200000, 0x80200000, CODE, 2**63)]), "image-outside-ram", "outside RAM"),
        (Elf(segments=[(0x80200000, 0x80200000, CODE, 4)]), "elf-segment-size", "8 bytes in the file"),
        (Elf(file_size=1 << 40), "elf-truncated", "segment"),
        (Elf(symbols={"a": (0, 2)}, strings_link=0), "elf-symbols", "section 0"),
        (Elf(symbols={"a": (0, 2)}, strings_link=77), "elf-symbols", "section 77"),
        (
            Elf(segments=[(0x80200000, 0x80200000, CODE, 0x1000), (0x80200800, 0x80200800, CODE, 8)]),
            "elf-overlap",
            "0x80200800",
        ),
        (
            Elf(segments=[(0x80200000 + 16 * i, 0x80200000 + 16 * i, CODE, 8) for i in range(65)]),
            "elf-too-many-segments",
            "64 is the most",
        ),
    ],
)
def test_a_bad_elf_is_refused_with_the_reason(elf: Elf, key: str, words: str) -> None:
    error = _refusal(elf.build())
    assert error.problem.key == key
    assert re.search(words, error.problem.message)


def test_a_file_cut_short_anywhere_says_so() -> None:
    whole = Elf(symbols={"_start": (0x80200000, 2)}).build()
    for length in range(6, len(whole)):
        error = _refusal(whole[:length])
        assert error.problem.key == "elf-truncated"
        assert error.problem.params["file_size"] == length


def test_segments_cannot_multiply_the_file() -> None:
    """Many segments over the same bytes would turn a small upload into gigabytes."""
    content = bytes(1000)
    elf = Elf(segments=[(0x80200000 + 4096 * i, 0x80200000 + 4096 * i, b"", 4096) for i in range(50)])
    elf.segments.append((0x80300000, 0x80300000, content, 4096))
    blob = bytearray(elf.build())
    for index in range(50):
        struct.pack_into("<Q", blob, 64 + 56 * index + 32, 1000)
        struct.pack_into("<Q", blob, 64 + 56 * index + 8, len(blob) - 1000)
    assert _refusal(bytes(blob)).problem.key == "elf-segments-share"


def test_other_refusals() -> None:
    for content, options, key in (
        (b"", {}, "image-empty"),
        (b"\x1f\x8b\x08" + bytes(100), {}, "image-packed"),
        (Elf().build(), {"address": 0x80000000}, "elf-address"),
        (_image_header(flags=1), {}, "image-endianness"),
        (_image_header()[:62], {}, "image-header-truncated"),
        (_image_header(offset=2**64 - 1), {}, "image-outside-ram"),
        (CODE, {"address": 0x1000}, "image-outside-ram"),
        (CODE, {"address": 0x80000001}, "image-entry-misaligned"),
    ):
        assert _refusal(content, **options).problem.key == key


def test_check_fits() -> None:
    image = inspect(CODE, "guest.elf", address=0x80200000)
    check_fits(image, image.memory_needed)
    with pytest.raises(LabError, match="needs 3 MiB of memory; the machine has 2 MiB") as caught:
        check_fits(image, 2 * MIB)
    assert caught.value.problem.key == "image-too-large"
    assert caught.value.problem.params["need_mib"] == 3


# -- hostile files ---------------------------------------------------------------------------------
def _holds(image: LoadedImage, content: bytes) -> None:
    assert all(segment.address >= 0x80000000 for segment in image.segments)
    assert sum(len(segment.data) for segment in image.segments) <= 2 * len(content)
    assert any(segment.address <= image.entry < segment.end for segment in image.segments)
    assert image.entry % 4 == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
@example(b"\x7fELF")
@example(b"\x7fELF\2")
@example(b"\x7fELF\2\1")
@example(bytes(56) + b"RSC\x05")
def test_no_bytes_raise_anything_but_lab_error(content: bytes) -> None:
    for start in (b"", b"\x7fELF\2\1\1"):
        try:
            _holds(inspect(start + content, "x"), start + content)
        except LabError:
            continue


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32))
def test_no_spoilt_elf_raises_anything_but_lab_error(seed: int) -> None:
    chance = random.Random(seed)
    blob = bytearray(Elf(symbols={"_start": (0x80200000, 2), "tohost": (0x80200800, 1)}).build())
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(4, len(blob))
        size = chance.choice((1, 2, 4, 8))
        value = chance.choice((0, 1, 0x7F, 0xFF, (1 << 63) - 1, (1 << 64) - 1, chance.getrandbits(64)))
        blob[at : at + size] = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    content = bytes(blob)
    try:
        _holds(inspect(content, "x"), content)
    except LabError:
        return
