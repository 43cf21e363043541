"""The catalogue of guests: every row is complete, images are what they claim to be, lines and symbols fit
them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from engine.guests import (
    Guest,
    guest,
    guests,
    load_image,
    load_lines,
    program_symbols,
    source_files,
    source_text,
)
from engine.guests.build import BUILDERS, BUILT_WITH, IMAGES, Toolchain, build
from tests.support.qemu import run_qemu

NAMES = [row.name for row in guests()]


def test_names_are_unique_and_each_has_a_builder() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) == set(BUILDERS)


def test_a_guest_waits_for_its_user_unless_told_otherwise() -> None:
    assert {row.name: row.arguments for row in guests()} == {"ringos": "", "ringos-pv": "", "hello": ""}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_a_small_riscv_elf_at_the_kernels_address(name: str) -> None:
    data = load_image(name)
    image = ELFFile(io.BytesIO(data))
    assert len(data) < 200 * 1024
    assert (image.elfclass, image["e_machine"], image["e_type"]) == (64, "EM_RISCV", "ET_EXEC")
    assert image["e_entry"] == 0x80200000
    segments = [segment for segment in image.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert all(segment["p_paddr"] == segment["p_vaddr"] >= 0x80200000 for segment in segments)
    assert image.get_section_by_name(".symtab") is not None
    assert not image.has_dwarf_info()
    assert str(Path.cwd()).encode() not in data
    assert b"/usr/" not in data


@pytest.mark.parametrize("name", NAMES)
def test_lines_ascend_and_point_into_the_sources(name: str) -> None:
    table = load_lines(name)
    lengths = [len(source_text(name, file).splitlines()) for file in table["files"]]
    for rows in (table["rows"], *table["programs"].values()):
        addresses = [address for address, _, _ in rows]
        assert addresses == sorted(set(addresses))
        assert rows[-1][1] == -1
        assert all(file == -1 or 1 <= line <= lengths[file] for _, file, line in rows)


def test_a_functions_first_line_is_where_its_source_says() -> None:
    image = ELFFile(io.BytesIO(load_image("ringos")))
    table = load_lines("ringos")
    symbol = image.get_section_by_name(".symtab").get_symbol_by_name("vm_fault")[0]
    _, file, line = next(row for row in table["rows"] if row[0] == symbol["st_value"])
    assert table["files"][file] == "vm.c"
    assert "long vm_fault(" in "".join(source_text("ringos", "vm.c").splitlines()[line - 5 : line])


def test_every_program_has_lines_and_symbols() -> None:
    symbols = program_symbols("ringos")
    assert set(symbols) == set(load_lines("ringos")["programs"])
    assert program_symbols("hello") == {}
    for names in symbols.values():
        assert {"_start", "main", "write"} <= {name for _, _, name in names}


def test_unknown_names_and_paths_outside_are_refused() -> None:
    with pytest.raises(KeyError):
        guest("nobody")
    with pytest.raises(KeyError):
        load_image("nobody")
    for file in ("../__init__.py", "/etc/passwd", "nothing.c", "user", ""):
        with pytest.raises(FileNotFoundError):
            source_text("ringos", file)
    assert "hello.s" in source_files("hello")


@pytest.mark.parametrize("row", guests(), ids=NAMES)
def test_the_committed_images_are_what_the_sources_build(row: Guest, tmp_path: Path) -> None:
    """Byte for byte with the compiler that made them; with another one, the same behaviour."""
    tools = Toolchain.find()
    built = build(row, tools)
    if tools.version == BUILT_WITH:
        stale = [name for name, data in built.items() if (IMAGES / name).read_bytes() != data]
        assert not stale, f"run python -m engine.guests.build: {', '.join(stale)}"
    else:
        image = tmp_path / "image.elf"
        image.write_bytes(built[f"{row.name}.elf"])
        assert console(image) == console(IMAGES / f"{row.name}.elf")


def console(image: Path) -> str:
    arguments = "run=work compute 10;work switch 5;work pagefault 5;poweroff 9"
    result = run_qemu(image, arguments=arguments)
    assert result.status in (0, 9)
    return result.output
