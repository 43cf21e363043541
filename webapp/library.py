"""Adding images to the server's library (engine.library), listing and removing them.

Invariants: a file of the library is written to a temporary name, synced and renamed, the manifest last, so
that an image is there wholly or not at all; what was once written is never written again. Several processes
may add at the same time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.commands import LabError
from engine.guests import guests
from engine.library import FORMAT, MANIFEST_SUFFIX, Manifest, manifests
from engine.machine.loader import check_fits, inspect, with_disk, with_firmware, with_initrd

FOLDER = "images"
MIB = 1 << 20


def library_folder(data: Path) -> Path:
    """Where a data folder keeps its library."""
    return data / FOLDER


@dataclass(frozen=True, slots=True)
class NewImage:
    """What is to be added. `memory_mib` is what a guest gets unless somebody says otherwise."""

    name: str
    title: str
    kernel: bytes
    initrd: bytes | None = None
    firmware: bytes | None = None
    disk: bytes | None = None
    arguments: str = ""
    memory_mib: int = 256


def add(folder: Path, image: NewImage) -> Manifest:
    """Check that an image can be started and keep it. The same image again changes nothing but its age.

    Raises LabError with what is wrong with it, and OSError when the folder cannot be written.
    """
    if any(guest.name == image.name for guest in guests()):
        raise LabError("library-name-taken", f"A guest that comes with Ringside is called {image.name}.", name=image.name)
    loaded = inspect(image.kernel, image.name)
    if image.initrd is not None:
        loaded = with_initrd(loaded, image.initrd)
    if image.disk is not None:
        loaded = with_disk(loaded, image.disk, image.name)
    if image.firmware is not None:
        loaded = with_firmware(loaded, inspect(image.firmware, "firmware"))
    check_fits(loaded, image.memory_mib * MIB)
    try:
        manifest = msgspec.convert(
            {
                "format": FORMAT,
                "name": image.name,
                "title": image.title,
                "added": int(time.time()),
                "kernel": _digest(image.kernel),
                "initrd": None if image.initrd is None else _digest(image.initrd),
                "firmware": None if image.firmware is None else _digest(image.firmware),
                "disk": None if image.disk is None else _digest(image.disk),
                "arguments": image.arguments,
                "memory_mib": image.memory_mib,
            },
            Manifest,
        )
    except msgspec.ValidationError as error:
        raise LabError(
            "library-manifest",
            f"This cannot be an image: {error}. A name has 1 to 40 small letters, digits, dots or dashes, "
            "a guest 4 to 512 MiB, and arguments have at most 512 characters.",
            detail=str(error),
        ) from error
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for content in (image.kernel, image.initrd, image.firmware, image.disk):
        if content is not None:
            _keep(folder / _digest(content), content)
    _keep(folder / (manifest.digest + MANIFEST_SUFFIX), msgspec.json.encode(manifest), again=True)
    return manifest


def remove(folder: Path, name: str) -> int:
    """Remove every image of this name, and files that no other has; how many images. Labs whose guests were
    started from one can only be opened again when it is added again.
    """
    found = manifests(folder)
    dropped = [manifest for manifest in found if manifest.name == name]
    kept = [manifest for manifest in found if manifest.name != name]
    for manifest in dropped:
        (folder / (manifest.digest + MANIFEST_SUFFIX)).unlink(missing_ok=True)
    needed = {part for manifest in kept for part in manifest.parts}
    for part in {part for manifest in dropped for part in manifest.parts} - needed:
        (folder / part).unlink(missing_ok=True)
    return len(dropped)


def size_of(folder: Path, manifest: Manifest) -> int:
    """Bytes of its files."""
    return sum((folder / part).stat().st_size for part in manifest.parts)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _keep(path: Path, content: bytes, again: bool = False) -> None:
    if not again and path.is_file() and path.stat().st_size == len(content):
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o400)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
