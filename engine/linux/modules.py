"""Kernel modules: what each needs and which devices it drives, read from the modules themselves.

A module is an ELF file with a section `.modinfo` of NUL-terminated `key=value` texts (linux/module.h,
MODULE_INFO): `depends` names other modules, `alias` the patterns of devices. From them come the two tables
that modprobe reads (modules.dep(5), modules.alias), which Debian makes with depmod when a kernel is
installed.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from engine.commands import LabError

SUFFIX = ".ko"
PACKED_SUFFIX = ".ko.xz"
LIMIT_BYTES = 64 << 20

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True, slots=True)
class Module:
    """`content` is the file, packed if `suffix` says so; `depends` are names with underscores."""

    name: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    suffix: str = SUFFIX

    @property
    def file_name(self) -> str:
        return self.name + self.suffix


def module_name(path: str) -> str:
    """`kernel/drivers/char/hw_random/virtio-rng.ko.xz` is the module virtio_rng."""
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")


def read(path: str, file: bytes, *, stay_packed: bool = False) -> Module:
    """A module from its file, packed with xz or not. Raises LabError "module-damaged"."""
    name, content, suffix = module_name(path), file, SUFFIX
    if path.endswith(PACKED_SUFFIX):
        try:
            content = lzma.LZMADecompressor().decompress(file, max_length=LIMIT_BYTES)
        except lzma.LZMAError as error:
            raise _damaged(name, str(error)) from error
        suffix = PACKED_SUFFIX if stay_packed else SUFFIX
    information = _information(content, name)
    needed = (value.split(",") for key, value in information if key == "depends")
    return Module(
        name,
        file if suffix == PACKED_SUFFIX else content,
        tuple(other.replace("-", "_") for others in needed for other in others if other),
        tuple(value for key, value in information if key == "alias"),
        suffix,
    )


def closure(
    wanted: Iterable[str], packed: Mapping[str, tuple[str, bytes]], rarely: Iterable[str] = ()
) -> list[Module]:
    """`wanted` modules and all that they need, needed ones first. `packed`: name -> (path, file).

    Those that only `rarely` wanted ones need stay packed: they take longer to load and less to carry. A name that
    `packed` lacks is built into the kernel. Raises LabError "module-damaged".
    """
    found: dict[str, Module] = {}

    def visit(name: str, above: tuple[str, ...], stay_packed: bool) -> None:
        if name in found or name not in packed:
            return
        if name in above:
            raise _damaged(name, "it needs itself")
        module = read(*packed[name], stay_packed=stay_packed)
        for other in module.depends:
            visit(other, (*above, name), stay_packed)
        found[name] = module

    for name in wanted:
        visit(name, (), False)
    for name in rarely:
        visit(name, (), True)
    return list(found.values())


def tables(modules: Iterable[Module]) -> dict[str, bytes]:
    """modules.dep and modules.alias for modules that lie in one folder, needed ones first.

    A row has all that its module needs, what is needed deepest last: modprobe begins at the end.
    """
    present: dict[str, Module] = {}
    needed: dict[str, set[str]] = {}
    rows = []
    for module in modules:
        direct = [other for other in module.depends if other in present]
        all_needed = needed[module.name] = set(direct).union(*(needed[other] for other in direct))
        in_order = [other.file_name for other in reversed(present.values()) if other.name in all_needed]
        rows.append(f"{module.file_name}:" + "".join(f" {name}" for name in in_order))
        present[module.name] = module
    aliases = [f"alias {alias} {module.name}" for module in present.values() for alias in module.aliases]
    return {
        "modules.dep": "".join(f"{line}\n" for line in rows).encode(),
        "modules.alias": "".join(f"{line}\n" for line in aliases).encode(),
    }


def _information(content: bytes, name: str) -> list[tuple[str, str]]:
    try:
        header = _ELF_HEADER.unpack_from(content)
        at, size, count, names = header[6], header[11], header[12], header[13]
        if header[0][:4] != b"\x7fELF" or size != _SECTION_HEADER.size:
            raise _damaged(name, "it is no 64-bit ELF file")
        sections = [_SECTION_HEADER.unpack_from(content, at + index * size) for index in range(count)]
        texts_at = sections[names][4]
    except (struct.error, IndexError) as error:
        raise _damaged(name, "its section headers are cut short") from error
    for section in sections:
        begin = texts_at + section[0]
        if content[begin : begin + 9] == b".modinfo\0":
            rows = content[section[4] : section[4] + section[5]].split(b"\0")
            pairs = (row.decode("utf-8", "replace").partition("=") for row in rows if row)
            return [(key, value) for key, _, value in pairs]
    raise _damaged(name, "it has no section .modinfo")


def _damaged(name: str, reason: str) -> LabError:
    return LabError(
        "module-damaged", f"The kernel module {name} cannot be used: {reason}.", name=name, reason=reason
    )
