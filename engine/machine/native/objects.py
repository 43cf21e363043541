"""From LLVM IR to code in this process, by way of object files that are kept on disk.

An object has a name, which says what it is made from, in a folder named by what makes it: the machine's source files,
the compiler's version, the processor. A second start reads it, and neither writes IR nor compiles. A file that is
damaged or cannot be written costs a compilation and nothing else. When there are too many, the oldest go.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import blake2b
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from engine import isa, machine

_DIGEST_BYTES = 20
#: Files kept, of some KiB each; above that the older half goes.
MAX_KEPT = 16_384
_folder: Path | None = None
#: The target machine works for one thread at a time.
_compiling = Lock()
_serial = count()


def folder_in(environ: Mapping[str, str]) -> Path:
    """Where a user's objects are kept: RINGSIDE_CACHE, else the place that the XDG base directory specification has for
    a user's caches."""
    if environ.get("RINGSIDE_CACHE"):
        return Path(environ["RINGSIDE_CACHE"])
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ringside"


def keep_in(folder: Path | None) -> None:
    """Where objects are kept from now on; None: nowhere."""
    global _folder  # noqa: PLW0603
    _folder = folder


def kept() -> list[str]:
    """The names of the objects that are on disk."""
    folder = _objects()
    if folder is None:
        return []
    try:
        return [entry.name.removesuffix(".o") for entry in os.scandir(folder) if entry.name.endswith(".o")]
    except OSError:
        return []


def thin_out() -> None:
    """Delete the older half of the kept objects if they are too many."""
    if _folder is None:
        return
    with contextlib.suppress(OSError):
        found = list(_folder.glob("*/*.o"))
        if len(found) > MAX_KEPT:
            for path in sorted(found, key=lambda path: path.stat().st_mtime)[: len(found) // 2]:
                path.unlink(missing_ok=True)
            for folder in _folder.iterdir():
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()


def host_has(feature: str) -> bool:
    """Does this processor have a feature, by LLVM's name for it? A name of another architecture's is none."""
    return bool(llvm.get_host_cpu_features().get(feature))


@cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # Guests' code has its addresses worked out: loop strength reduction would only spread a loop's budget over registers. How
    # a hot loop lies to the processor's cache lines is worth a sixth of its speed.
    for option in ("--disable-lsr", "--align-loops=64"):
        llvm.set_option("", option)
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="small",
        jit=True,
    )


@cache
def _linker() -> Any:
    _machine()
    return llvm.create_lljit_compiler(_machine())


def _compile(ir: str, level: int) -> bytes:
    machine = _machine()
    module = llvm.parse_assembly(ir, llvm.create_context())
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    image: bytes = machine.emit_object(module)
    return image


@cache
def _maker() -> str:
    """What tells objects of one name apart: the sources of the machine and its instructions, the compiler, the
    processor."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for folder in (Path(machine.__file__).parent, Path(isa.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    digest.update(f"{llvmlite.__version__} {llvm.llvm_version_info} {llvm.get_host_cpu_name()} {features}".encode())
    return digest.hexdigest()


def _objects() -> Path | None:
    return None if _folder is None else _folder / _maker()


def _read(path: Path) -> bytes | None:
    """A kept object; None if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, image = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return image if blake2b(image, digest_size=_DIGEST_BYTES).digest() == digest else None


def _keep(path: Path, image: bytes) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(blake2b(image, digest_size=_DIGEST_BYTES).digest() + image)
        Path(name).replace(path)


def image_of(name: str, level: int, write: Callable[[], str | None]) -> bytes | None:
    """The object file of the module that `write` gives, from disk where it is there; None: there is no such module.
    name: a file's, the same for the same module. May be called from any thread."""
    folder = _objects()
    path = folder / f"{name}.o" if folder else None
    image = _read(path) if path else None
    if image is None:
        ir = write()
        if ir is None:
            image = b""
        else:
            with _compiling:
                image = _compile(ir, level)
        if path:
            _keep(path, image)
    return image or None


class Linked:
    """Code of one module in this process: addresses by symbol. It lives as long as this object."""

    def __init__(self, name: str, image: bytes, exported: list[str], imported: Mapping[str, int]) -> None:
        builder = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
        for symbol in exported:
            builder.export_symbol(symbol)
        for symbol, address in imported.items():
            builder.import_symbol(symbol, address)
        self._tracker = builder.link(_linker(), f"{name} {next(_serial)}")
        self.addresses: dict[str, int] = {symbol: self._tracker[symbol] for symbol in exported}
