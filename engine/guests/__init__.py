"""The teaching guests: small kernels that come with Ringside, with their sources and built images.

Why: the palette, ``ringside run`` and the tests all start guests by name; this is the one list they read.
Adding a guest is one row here, one folder of sources beside it and one builder in ``build.py``.

Invariants: names are unique; every file is reached through ``importlib.resources``, so that a guest works
from a wheel; source paths never leave their guest's folder. Images are ELF files linked at 0x80200000, the
address at which QEMU's ``virt`` board starts a ``-kernel`` image in supervisor mode.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import TypedDict


class Lines(TypedDict):
    """Where addresses come from in the source: ``build.py`` says how to read it."""

    files: list[str]
    rows: list[tuple[int, int, int]]
    programs: dict[str, list[tuple[int, int, int]]]


@dataclass(frozen=True)
class Guest:
    """One teaching guest.

    ``title_key`` is a key of the page's catalogue of strings; ``image`` and ``lines`` are files below this
    package; ``source_root`` is the folder that the paths in ``lines`` start from; ``main_source`` is what a
    reader opens first; ``arguments`` become the kernel's boot arguments (``/chosen/bootargs``). Of kernels that are
    built from one folder, ``machine`` is the folder below it that only this one has, and ``original`` the name of
    the guest that this one is a changed form of.
    """

    name: str
    title_key: str
    image: str
    lines: str
    source_root: str
    main_source: str
    memory_mib: int
    arguments: str
    machine: str | None = None
    original: str | None = None


def _guest(
    name: str, main_source: str, *, memory_mib: int, machine: str | None = None, original: str | None = None
) -> Guest:
    return Guest(
        name=name,
        title_key=f"guest.{name}.title",
        image=f"images/{name}.elf",
        lines=f"images/{name}.lines.json",
        source_root=original or name,
        main_source=main_source,
        memory_mib=memory_mib,
        arguments="",
        machine=machine,
        original=original,
    )


_GUESTS = (
    _guest("ringos", "main.c", memory_mib=16, machine="native"),
    _guest("ringos-pv", "pv/machine.h", memory_mib=16, machine="pv", original="ringos"),
    _guest("hello", "hello.s", memory_mib=4),
)


def guests() -> tuple[Guest, ...]:
    """The catalogue, in the order in which it is shown."""
    return _GUESTS


def guest(name: str) -> Guest:
    """The guest of this name. Raises KeyError if there is none."""
    for row in _GUESTS:
        if row.name == name:
            return row
    raise KeyError(name)


def load_image(name: str) -> bytes:
    """The guest's image, as it is loaded. Raises KeyError if there is no such guest."""
    return _file(guest(name).image).read_bytes()


def image_path(name: str) -> Path:
    """The file of the guest's image, for a debugger that wants its symbols. Raises KeyError."""
    return Path(str(_file(guest(name).image)))


def load_lines(name: str) -> Lines:
    """The guest's address-to-source table. Raises KeyError if there is no such guest."""
    lines: Lines = json.loads(_file(guest(name).lines).read_bytes())
    return lines


def program_symbols(name: str) -> dict[str, list[tuple[int, int, str]]]:
    """Symbols (address, size, name) of each user program inside the guest's image; empty if it has none.

    Raises KeyError if there is no such guest.
    """
    path = _file(f"images/{guest(name).name}.symbols.json")
    if not path.is_file():
        return {}
    symbols: dict[str, list[tuple[int, int, str]]] = json.loads(path.read_bytes())
    return symbols


def source_files(name: str) -> list[str]:
    """Paths of the guest's sources, relative to its folder. Raises KeyError if there is no such guest."""

    def below(folder: Traversable, prefix: str) -> list[str]:
        paths: list[str] = []
        for entry in folder.iterdir():
            path = prefix + entry.name
            paths += below(entry, f"{path}/") if entry.is_dir() else [path]
        return paths

    return sorted(below(_file(guest(name).source_root), ""))


def source_text(name: str, file: str) -> str:
    """One source file of a guest, by its path in ``source_files``.

    Raises KeyError if there is no such guest, FileNotFoundError if it has no such file.
    """
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or file not in source_files(name):
        raise FileNotFoundError(f"the guest {name} has no source file {file!r}")
    return _file(f"{guest(name).source_root}/{path}").read_text(encoding="utf-8")


def _file(path: str) -> Traversable:
    return files(__name__).joinpath(*path.split("/"))
