"""The images that a server keeps for all of its labs: kernels with their initial RAM disks, large and shared.

    images/<identity>.json   a manifest: what the image consists of, its boot arguments, the memory it wants
    images/<sha256>          a file of it, by its content, never changed

A lab names such an image by the digest of what its guests can see of it (`Manifest.identity`), so that a lab
is still a function of its commands: the same identity is the same machine, whatever the image is called. Its
content is in no checkpoint. A newer image of the same name takes the place of an older one in the lists; the
older one stays for the guests that were started from it.

The files are mapped into memory, read-only: all labs of a process, and all processes, share one copy, and a
lab costs what its guests write. A file is checked against its digest before anything is started from it.
Whoever adds an image (webapp.library) writes files to temporary names and renames them, the manifest last;
nothing truncates a file that somebody may have mapped.
"""

from __future__ import annotations

import hashlib
import mmap
from functools import cached_property
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from engine.commands import LabError
from engine.document import ImageRow
from engine.machine.loader import Content, LoadedImage, inspect, with_disk, with_firmware, with_initrd

FORMAT = 1
MANIFEST_SUFFIX = ".json"

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
ImageName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]


class Manifest(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One image. `title` says what it is in a line ("Debian 13, Linux 6.12.107"); `arguments` are boot
    arguments.
    """

    format: Annotated[int, Meta(ge=1)]
    name: ImageName
    title: Annotated[str, Meta(max_length=80)]
    added: Annotated[int, Meta(ge=0)]
    kernel: Digest
    initrd: Digest | None = None
    firmware: Digest | None = None
    disk: Digest | None = None
    arguments: Annotated[str, Meta(max_length=512)] = ""
    memory_mib: Annotated[int, Meta(ge=4, le=512)] = 256

    @property
    def digest(self) -> str:
        """Of what it is, not of what it is called."""
        plain = msgspec.structs.replace(self, name="-", title="", added=0)
        return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()

    @property
    def identity(self) -> str:
        """The image's id in a lab."""
        return f"sha256:{self.digest}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The digests of its files."""
        return tuple(
            digest for digest in (self.kernel, self.initrd, self.firmware, self.disk) if digest is not None
        )


class _Entry:
    """An image of the folder."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self.manifest = manifest

    @cached_property
    def row(self) -> ImageRow:
        manifest = self.manifest
        size = sum((self._folder / part).stat().st_size for part in manifest.parts)
        return ImageRow(
            manifest.identity,
            manifest.name,
            False,
            size,
            manifest.memory_mib,
            "linux",
            arguments=manifest.arguments,
            title=manifest.title,
        )

    @cached_property
    def loaded(self) -> LoadedImage:
        """Raises LabError "library-damaged", or the loader's own."""
        manifest = self.manifest
        image = inspect(self._mapped(manifest.kernel), manifest.name)
        if manifest.initrd is not None:
            image = with_initrd(image, self._mapped(manifest.initrd))
        if manifest.disk is not None:
            image = with_disk(image, self._mapped(manifest.disk), manifest.name)
        if manifest.firmware is not None:
            image = with_firmware(image, inspect(self._mapped(manifest.firmware), "firmware"))
        return image

    def _mapped(self, digest: str) -> Content:
        try:
            with (self._folder / digest).open("rb") as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise self._damaged(f"its file {digest[:12]}… cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise self._damaged(f"its file {digest[:12]}… is not what it was")
        return content

    def _damaged(self, reason: str) -> LabError:
        name = self.manifest.name
        return LabError(
            "library-damaged",
            f"The image {name} is damaged: {reason}. Add it again.",
            name=name,
            reason=reason,
        )


class Library:
    """What a folder holds. Without a folder it is empty."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._entries: dict[str, _Entry] = {}
        self._listed: list[str] = []
        self.refresh()

    def refresh(self) -> bool:
        """Look at the folder again; whether the list of images has changed.

        What was there once stays for guests that were started from it, even if its manifest is gone.
        """
        before = self.rows()
        newest: dict[str, Manifest] = {}
        for manifest in manifests(self.folder) if self.folder is not None else ():
            known = self._entries.get(manifest.identity)
            if known is None or known.manifest != manifest:
                assert self.folder is not None  # where the manifest is from
                self._entries[manifest.identity] = _Entry(self.folder, manifest)
            newest[manifest.name] = manifest
        self._listed = [manifest.identity for _, manifest in sorted(newest.items())]
        return self.rows() != before

    def rows(self) -> list[ImageRow]:
        """The newest image of each name, by name."""
        return [self._entries[identity].row for identity in self._listed]

    def row(self, identity: str) -> ImageRow | None:
        entry = self._entries.get(identity)
        return None if entry is None else entry.row

    def loaded(self, identity: str) -> LoadedImage | None:
        """None when there is no such image. Raises LabError when it cannot be started."""
        entry = self._entries.get(identity)
        return None if entry is None else entry.loaded


def manifests(folder: Path) -> list[Manifest]:
    """Every image of a folder whose files are all there, oldest first. What is no manifest is passed over."""
    found: list[Manifest] = []
    for path in folder.glob(f"*{MANIFEST_SUFFIX}"):
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        complete = all((folder / part).is_file() for part in manifest.parts)
        if manifest.format <= FORMAT and manifest.digest == path.stem and complete:
            found.append(manifest)
    return sorted(found, key=lambda manifest: (manifest.added, manifest.digest))
