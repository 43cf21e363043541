"""From files to what must be put where: ELF64, RISC-V `Image` and flat binaries, with an initial RAM disk and
with firmware. Reads bytes, touches no machine.

ELF: Tool Interface Standard 1.2 and the RISC-V psABI; `Image`: Linux,
Documentation/riscv/boot-image-header.rst; anything else is a flat binary. Segments go to their physical
addresses (p_paddr); an entry or `tohost` given as a virtual address is moved along with its segment. An image
whose lowest byte lies below 0x80200000 was linked at the start of RAM and starts in M mode; one from
0x80200000 on is what QEMU's `-kernel` takes and starts in S mode, with SBI below it.

Every file is treated as hostile: whatever its bytes say, `inspect` returns an image or raises LabError with
what is wrong, where, and what would be right, and its work is bounded by the file's length. Memory a segment
only reserves (.bss) is never allocated here.

A kernel of 30 MiB is never copied here: the segments of an `Image` or flat binary and the initial RAM disk
are the very buffers that were given, which may be read-only views of files that every lab of a process
shares. Only putting them into a machine's RAM copies them.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from engine.bits import MASK64
from engine.commands import LabError

RAM_BASE = 0x80000000
KERNEL_BASE = RAM_BASE + 0x200000
RAM_LIMIT = 1 << 40
#: What an initial RAM disk costs beside its bytes: it begins at a page, and above it is the device tree.
INITRD_SPACE = 0x201000

Kind = Literal["elf", "image", "flat"]
StartMode = Literal["M", "S"]
Content = bytes | memoryview

SEGMENTS_LIMIT = 64
SYMBOLS_LIMIT = 200_000
SYMBOL_NAME_LIMIT = 256


class Segment(NamedTuple):
    """`data` goes to physical `address`; the rest up to `memory_size` bytes is zero."""

    address: int
    data: Content
    memory_size: int
    executable: bool

    @property
    def end(self) -> int:
        return self.address + self.memory_size


class Symbols:
    """The names of an image's addresses (virtual ones, as pc shows them), sorted."""

    def __init__(self, addresses: Mapping[str, int], end: int = MASK64) -> None:
        """`end`: one past the last address that can belong to a symbol."""
        self._by_name = dict(addresses)
        self._end = end
        # Where several names share an address the first in the file counts.
        first: dict[int, str] = {}
        for name, address in self._by_name.items():
            first.setdefault(address, name)
        self._addresses = sorted(first)
        self._names = [first[address] for address in self._addresses]

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """(address, name) by address."""
        return iter(zip(self._addresses, self._names, strict=True))

    def lookup(self, address: int) -> tuple[str, int] | None:
        """The nearest symbol at or below `address` and the distance from it in bytes."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or address >= self._end:
            return None
        return self._names[index], address - self._addresses[index]

    def address(self, name: str) -> int | None:
        return self._by_name.get(name)


NO_SYMBOLS = Symbols({})


@dataclass(frozen=True)
class LoadedImage:
    """What to put into RAM and where to start. Segments are sorted, do not overlap and lie at or above
    RAM_BASE.
    """

    name: str
    kind: Kind
    entry: int  # physical
    segments: tuple[Segment, ...]
    start_mode: StartMode
    symbols: Symbols
    tohost: int | None = None  # physical address of the word through which it ends as under Spike
    initrd: Content = b""  # the board finds a place for it
    next_entry: int | None = None  # where firmware, which is what starts, finds its kernel
    disk: Content | None = None  # what its guests find on their disk, if they have one
    paravirtual: bool = False  # its kernel asks a hypervisor instead of executing privileged instructions

    @property
    def end(self) -> int:
        """One past the last physical address it occupies, without the initial RAM disk."""
        return self.segments[-1].end

    @cached_property
    def memory_needed(self) -> int:
        """Bytes of RAM it needs from RAM_BASE on."""
        needed = self.end - RAM_BASE
        return needed + len(self.initrd) + INITRD_SPACE if self.initrd else needed


def inspect(content: Content, name: str, address: int | None = None) -> LoadedImage:
    """Read an image. `address`: where a flat binary or an `Image` goes instead of its usual place.

    Raises LabError with a key that begins with "image-" or "elf-"; every one has the parameter `image`, the
    name.
    """
    if not content:
        raise LabError("image-empty", f"{name} is empty.", image=name)
    if content[:4] == b"\x7fELF":
        if address is not None:
            raise LabError(
                "elf-address",
                f"{name} is an ELF file, which says itself where it goes. "
                "Only a flat binary takes an address.",
                image=name,
            )
        return _Elf(bytes(content), name).load()
    packing = next((packing for magic, packing in _PACKED.items() if content[: len(magic)] == magic), None)
    if packing is not None:
        raise LabError(
            "image-packed",
            f"{name} is packed with {packing}; unpack it first.",
            image=name,
            packing=packing,
        )
    if content[_IMAGE_MAGIC_AT : _IMAGE_MAGIC_AT + 4] == _IMAGE_MAGIC:
        return _load_image(content, name, address)
    return _load_flat(content, name, address)


def with_initrd(image: LoadedImage, initrd: Content) -> LoadedImage:
    """The kernel with an initial RAM disk. Raises LabError "initrd-empty" or "initrd-start"."""
    if not initrd:
        raise LabError("initrd-empty", f"The initial RAM disk of {image.name} is empty.", image=image.name)
    if image.start_mode != "S":
        raise LabError(
            "initrd-start",
            f"{image.name} starts at {image.entry:#x} in M mode and takes no initial RAM disk; a kernel, "
            f"which starts in S mode from {KERNEL_BASE:#x} on, does.",
            image=image.name,
            entry=f"{image.entry:#x}",
        )
    return replace(image, initrd=initrd)


#: Formats of disk images that are not the disk's plain content, by how they begin.
_DISK_FORMATS = {b"QFI\xfb": "qcow2", b"KDMV": "VMDK", b"vhdxfile": "VHDX", b"conectix": "VHD"}


def with_disk(image: LoadedImage, disk: Content, name: str) -> LoadedImage:
    """The image with a disk beside it, whose plain content is `disk`. Raises LabError "disk-empty" or
    "disk-format".
    """
    if not disk:
        raise LabError("disk-empty", f"The disk {name} is empty.", disk=name)
    for magic, packing in (_PACKED | _DISK_FORMATS).items():
        if disk[: len(magic)] == magic:
            raise LabError(
                "disk-format",
                f"{name} is in the format {packing}, and a disk must be its plain content. "
                f"Convert it: qemu-img convert -O raw {name} disk.raw, or unpack it if it is compressed.",
                disk=name,
                format=packing,
            )
    return replace(image, disk=disk)


def with_firmware(image: LoadedImage, firmware: LoadedImage) -> LoadedImage:
    """The kernel below which `firmware` (OpenSBI's fw_dynamic or fw_jump) starts instead of the built-in one.

    Raises LabError "firmware-start" or "firmware-overlap".
    """
    if firmware.start_mode != "M" or image.start_mode != "S":
        wrong, mode = (firmware, "M") if firmware.start_mode != "M" else (image, "S")
        raise LabError(
            "firmware-start",
            f"{wrong.name} starts at {wrong.entry:#x}; firmware starts in M mode from {RAM_BASE:#x} on, "
            f"and the kernel above it in S mode from {KERNEL_BASE:#x} on.",
            image=wrong.name,
            entry=f"{wrong.entry:#x}",
            mode=mode,
        )
    if firmware.end > image.segments[0].address:
        raise LabError(
            "firmware-overlap",
            f"{firmware.name} reaches to {firmware.end:#x}, into {image.name}, which begins at "
            f"{image.segments[0].address:#x}.",
            firmware=firmware.name,
            end=f"{firmware.end:#x}",
            image=image.name,
            address=f"{image.segments[0].address:#x}",
        )
    return replace(
        image,
        entry=firmware.entry,
        segments=(*firmware.segments, *image.segments),
        start_mode="M",
        next_entry=image.entry,
    )


def check_fits(image: LoadedImage, ram_size: int) -> None:
    """Raise LabError "image-too-large" unless the image ends within `ram_size` bytes of RAM."""
    if image.memory_needed > ram_size:
        need, have = -(-image.memory_needed >> 20), ram_size >> 20
        raise LabError(
            "image-too-large",
            f"{image.name} reaches to {image.end:#x} and needs {need} MiB of memory; "
            f"the machine has {have} MiB.",
            image=image.name,
            need_mib=need,
            have_mib=have,
            end=f"{image.end:#x}",
        )


_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}

_IMAGE_HEADER = struct.Struct("<IIQQQIIQQII")
_IMAGE_MAGIC = b"RSC\x05"
_IMAGE_MAGIC_AT = 56
_IMAGE_BIG_ENDIAN = 1


def _load_image(content: Content, name: str, address: int | None) -> LoadedImage:
    if len(content) < _IMAGE_HEADER.size:
        raise LabError(
            "image-header-truncated",
            f"{name} ends inside its 64-byte RISC-V Image header, after {len(content)} bytes.",
            image=name,
            size=len(content),
        )
    _, _, text_offset, image_size, flags, *_ = _IMAGE_HEADER.unpack_from(content)
    if flags & _IMAGE_BIG_ENDIAN:
        raise LabError(
            "image-endianness",
            f"{name} is a big-endian RISC-V Image (flags at offset 24); this machine is little-endian.",
            image=name,
        )
    start = RAM_BASE + text_offset if address is None else address
    segment = _segment(name, start, content, max(image_size, len(content)))
    _check_entry_alignment(name, start)
    return LoadedImage(name, "image", start, (segment,), "S", NO_SYMBOLS)


def _load_flat(content: Content, name: str, address: int | None) -> LoadedImage:
    start = RAM_BASE if address is None else address
    segment = _segment(name, start, content, len(content))
    _check_entry_alignment(name, start)
    return LoadedImage(name, "flat", start, (segment,), _start_mode(start), NO_SYMBOLS)


def _start_mode(lowest: int) -> StartMode:
    return "M" if lowest < KERNEL_BASE else "S"


def _segment(
    name: str, address: int, data: Content, memory_size: int, *, executable: bool = True
) -> Segment:
    end = address + memory_size
    if address < RAM_BASE or end > RAM_LIMIT:
        raise LabError(
            "image-outside-ram",
            f"{name} has a segment at {address:#x}..{end:#x}, outside RAM, which begins at {RAM_BASE:#x}. "
            f"Link it at {RAM_BASE:#x} (M mode) or {KERNEL_BASE:#x} (S mode).",
            image=name,
            address=f"{address:#x}",
            end=f"{end:#x}",
        )
    return Segment(address, data, memory_size, executable)


def _check_entry_alignment(name: str, entry: int) -> None:
    if entry % 2:
        raise LabError(
            "image-entry-misaligned",
            f"{name} starts at {entry:#x}, which is odd, and instructions stand at multiples of 2.",
            image=name,
            entry=f"{entry:#x}",
        )


_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_EXEC, _DYN = 2, 3
_RISCV = 243
_LOAD, _DYNAMIC, _INTERP, _NOTE = 1, 2, 3, 4
_NOTE_HEADER = struct.Struct("<III")
#: An ELF note of this name and type says that an image is a paravirtual kernel; its value is the ABI's version.
PARAVIRTUAL_NOTE = b"Ringside\0", 1
_EXECUTE = 1
_SYMTAB, _STRTAB = 2, 3
_UNDEFINED = 0
_SYMBOL_TYPES = (0, 1, 2)  # NOTYPE, OBJECT, FUNC
_ELF_TYPES = {0: "ET_NONE", 1: "ET_REL", _DYN: "ET_DYN", 4: "ET_CORE"}
_MACHINES = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390", 40: "Arm", 62: "x86-64",
             183: "AArch64", 258: "LoongArch"}  # fmt: skip
#: e_flags (psABI, chapter 8.1) of code that this machine cannot execute, by the extension's letters.
_UNSUPPORTED_FLAGS = ((0x6, "Q"), (0x8, "E"))


class _Elf:
    """One ELF file being read."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name

    def _error(self, key: str, what: str, **params: str | int) -> LabError:
        return LabError(f"elf-{key}", f"{self._name}: {what}", image=self._name, **params)

    def _check_extent(self, what: str, offset: int, size: int) -> None:
        if offset + size > len(self._content):
            raise self._error(
                "truncated",
                f"the {what} at offset {offset:#x} is {size} bytes long, but the file ends after "
                f"{len(self._content)} bytes. It was cut short; copy it again.",
                part=what,
                offset=f"{offset:#x}",
                size=size,
                file_size=len(self._content),
            )

    def load(self) -> LoadedImage:
        header = self._header()
        _, file_type, _, _, entry, program_at, section_at, flags, _, entry_size, count, *sections = header
        self._check_flags(flags)
        headers = [
            _PROGRAM_HEADER.unpack_from(self._content, program_at + index * entry_size)
            for index in self._table("program header", program_at, entry_size, _PROGRAM_HEADER.size, count)
        ]
        self._check_static(file_type, headers)
        loads = [header for header in headers if header[0] == _LOAD and header[6] > 0]
        segments = self._segments(loads)
        start = self._physical(entry, loads)
        if start is None:
            raise self._error(
                "entry",
                f"its entry {entry:#x} lies in none of its segments. "
                "Give the linker the entry symbol (ENTRY or -e).",
                entry=f"{entry:#x}",
            )
        _check_entry_alignment(self._name, start)
        symbols = self._symbols(section_at, sections[0], sections[1], loads)
        tohost = symbols.address("tohost")
        return LoadedImage(
            self._name,
            "elf",
            start,
            segments,
            _start_mode(segments[0].address),
            symbols,
            None if tohost is None else self._physical(tohost, loads),
            paravirtual=self._has_note(headers),
        )

    def _has_note(self, headers: Sequence[tuple[int, ...]]) -> bool:
        """Does a note say that this is a paravirtual kernel (System V gABI, chapter 5)?"""
        for kind, _, offset, _, _, size, _, _ in headers:
            at, end = offset, min(offset + size, len(self._content))
            while kind == _NOTE and at + _NOTE_HEADER.size <= end:
                name_size, value_size, note = _NOTE_HEADER.unpack_from(self._content, at)
                at += _NOTE_HEADER.size
                if note == PARAVIRTUAL_NOTE[1] and self._content[at : at + name_size] == PARAVIRTUAL_NOTE[0]:
                    return True
                at += (name_size + 3 & ~3) + (value_size + 3 & ~3)
        return False

    def _header(self) -> tuple[bytes, int, int, int, int, int, int, int, int, int, int, int, int, int]:
        content = self._content
        if len(content) > 4 and content[4] != _CLASS_64:
            raise self._error(
                "class",
                f"it is not a 64-bit ELF file (class {content[4]} at offset 4). Compile it for rv64.",
                found=content[4],
            )
        if len(content) > 5 and content[5] != _LITTLE_ENDIAN:
            raise self._error(
                "endianness",
                f"it is not little-endian (data encoding {content[5]} at offset 5), as RISC-V code is.",
                found=content[5],
            )
        self._check_extent("ELF header", 0, _ELF_HEADER.size)
        header = _ELF_HEADER.unpack_from(content)
        machine = header[2]
        if machine != _RISCV:
            found = _MACHINES.get(machine, f"e_machine {machine}")
            raise self._error(
                "machine",
                f"it is made for {found}, not for RISC-V (offset 18). Use a riscv64 compiler.",
                found=found,
            )
        return header

    def _check_flags(self, flags: int) -> None:
        found = [what for flag, what in _UNSUPPORTED_FLAGS if flags & flag == flag]
        if found:
            needs = ", ".join(found)
            raise self._error(
                "extensions",
                f"it was compiled for RISC-V extensions that this machine lacks: {needs}. "
                "Compile it with -march=rv64gc -mabi=lp64d.",
                needs=needs,
            )

    def _table(self, what: str, offset: int, size: int, expected: int, count: int) -> range:
        """The indices of a header table, after checking that it lies in the file."""
        if count == 0:
            return range(0)
        if size != expected:
            raise self._error(
                "entry-size",
                f"its {what}s are {size} bytes each; ELF64 has {expected}.",
                part=what,
                found=size,
                expected=expected,
            )
        self._check_extent(f"{what} table", offset, size * count)
        return range(count)

    def _check_static(self, file_type: int, headers: Iterable[tuple[int, ...]]) -> None:
        if file_type != _EXEC:
            found = _ELF_TYPES.get(file_type, f"e_type {file_type}")
            raise self._error(
                "type",
                f"it is not an executable for fixed addresses but {found} (offset 16). "
                "Link it with -static -no-pie.",
                found=found,
            )
        if any(header[0] in (_INTERP, _DYNAMIC) for header in headers):
            raise self._error(
                "dynamic",
                "it is dynamically linked, and here is no system that could load its libraries. "
                "Link it with -static -no-pie.",
            )

    def _segments(self, loads: list[tuple[int, ...]]) -> tuple[Segment, ...]:
        if not loads:
            raise self._error("nothing-to-load", "it has no segment to load (no PT_LOAD program header).")
        if len(loads) > SEGMENTS_LIMIT:
            raise self._error(
                "too-many-segments",
                f"it has {len(loads)} segments to load; {SEGMENTS_LIMIT} is the most.",
                count=len(loads),
                limit=SEGMENTS_LIMIT,
            )
        segments = []
        total = 0
        for _, access, offset, _, address, file_size, memory_size, _ in loads:
            self._check_extent("segment", offset, file_size)
            if file_size > memory_size:
                raise self._error(
                    "segment-size",
                    f"the segment for {address:#x} has {file_size} bytes in the file "
                    f"but only {memory_size} in memory.",
                    address=f"{address:#x}",
                    file_size=file_size,
                    memory_size=memory_size,
                )
            total += file_size
            if total > 2 * len(self._content):
                raise self._error(
                    "segments-share",
                    f"its segments claim {total} bytes of a file of {len(self._content)} bytes.",
                    total=total,
                    file_size=len(self._content),
                )
            segments.append(
                _segment(
                    self._name,
                    address,
                    self._content[offset : offset + file_size],
                    memory_size,
                    executable=bool(access & _EXECUTE),
                )
            )
        segments.sort()
        for low, high in pairwise(segments):
            if high.address < low.end:
                raise self._error(
                    "overlap",
                    f"its segments {low.address:#x}..{low.end:#x} and {high.address:#x}..{high.end:#x} "
                    "overlap. Mend the linker script.",
                    first=f"{low.address:#x}..{low.end:#x}",
                    second=f"{high.address:#x}..{high.end:#x}",
                )
        return tuple(segments)

    @staticmethod
    def _physical(address: int, loads: Iterable[tuple[int, ...]]) -> int | None:
        """Where a linked address, or one that is physical already, is in memory; None if no segment has
        it."""
        for _, _, _, virtual, physical, _, memory_size, _ in loads:
            if virtual <= address < virtual + memory_size:
                return address - virtual + physical
        if any(header[4] <= address < header[4] + header[6] for header in loads):
            return address
        return None

    def _symbols(self, offset: int, size: int, count: int, loads: Iterable[tuple[int, ...]]) -> Symbols:
        sections = [
            _SECTION_HEADER.unpack_from(self._content, offset + index * size)
            for index in self._table("section header", offset, size, _SECTION_HEADER.size, count)
        ]
        table = next((section for section in sections if section[1] == _SYMTAB), None)
        if table is None:
            return NO_SYMBOLS
        _, _, _, _, at, length, link, *_ = table
        if link >= count or sections[link][1] != _STRTAB:
            raise self._error(
                "symbols",
                f"its symbol table names section {link} for its texts, which is not a string table.",
                section=link,
            )
        names_at, names_size = sections[link][4], sections[link][5]
        self._check_extent("symbol table", at, length)
        self._check_extent("symbols' string table", names_at, names_size)
        if length // _SYMBOL.size > SYMBOLS_LIMIT:
            raise self._error(
                "too-many-symbols",
                f"it has {length // _SYMBOL.size} symbols; {SYMBOLS_LIMIT} is the most. Strip it.",
                count=length // _SYMBOL.size,
                limit=SYMBOLS_LIMIT,
            )
        found: dict[str, int] = {}
        length -= length % _SYMBOL.size
        for name_at, info, _, section, value, _ in _SYMBOL.iter_unpack(self._content[at : at + length]):
            if section == _UNDEFINED or info & 0xF not in _SYMBOL_TYPES or name_at >= names_size:
                continue
            begin = names_at + name_at
            limit = min(begin + SYMBOL_NAME_LIMIT, names_at + names_size)
            text, *_ = self._content[begin:limit].split(b"\0", 1)
            if text and not text.startswith((b"$", b".L")):
                found.setdefault(text.decode("utf-8", "replace"), value)
        return Symbols(found, max(header[3] + header[6] for header in loads))
