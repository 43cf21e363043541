"""The images a lab can start: the teaching guests that come with Ringside, what people uploaded or assembled,
and what the server's library holds for all labs.

An image's id is a builtin's name, or "sha256:" and the digest of its content, so that the same upload is kept
once. An image is immutable and is never removed from a lab: undo may bring back a guest that was started from
it.
"""

from __future__ import annotations

import hashlib
from functools import cache

from engine import guests
from engine.commands import LabError
from engine.document import ImageKind, ImageRow
from engine.isa.assembler import assemble
from engine.library import Library
from engine.machine.loader import LoadedImage, inspect

_MIB = 1 << 20
#: A student's program gets this much unless it says or needs more.
_DEFAULT_MIB = 16
_MAX_MIB = 512


@cache
def builtin_rows() -> dict[str, ImageRow]:
    """The teaching guests, as rows of a document."""
    rows = {}
    for guest in guests.guests():
        content = guests.load_image(guest.name)
        source = (
            guests.source_text(guest.name, guest.main_source) if guest.main_source.endswith(".s") else None
        )
        image = inspect(content, guest.name)
        rows[guest.name] = ImageRow(
            guest.name,
            guest.name,
            True,
            len(content),
            guest.memory_mib,
            image.kind,
            guest.title_key,
            source,
            guest.arguments,
            paravirtual=image.paravirtual,
            original=guest.original,
        )
    return rows


@cache
def _builtin(name: str) -> LoadedImage:
    return inspect(guests.load_image(name), name)


class Images:
    """Contents by id. Rows of the uploaded ones live in the document; `contents` is what a checkpoint keeps.
    """

    def __init__(self, library: Library, contents: dict[str, bytes] | None = None) -> None:
        self.library = library
        self.contents = contents or {}
        self._loaded: dict[str, LoadedImage] = {}

    def common(self) -> list[ImageRow]:
        """Rows of the images that every lab of this server has."""
        return [*builtin_rows().values(), *self.library.rows()]

    def common_row(self, image: str) -> ImageRow | None:
        return builtin_rows().get(image) or self.library.row(image)

    def loaded(self, image: str) -> LoadedImage:
        """Raises LabError "no-such-image", or the loader's own when a restored content is no image."""
        if image in builtin_rows():
            return _builtin(image)
        found = self._loaded.get(image) or self.library.loaded(image)
        if found is None:
            content = self.contents.get(image)
            if content is None:
                raise LabError("no-such-image", f"This lab has no image {image}.", image=image)
            found = self._loaded[image] = inspect(content, image)
        return found

    def upload(self, name: str, content: bytes) -> ImageRow:
        """Keep an ELF, a RISC-V Image or a flat binary. Raises the loader's LabError when it cannot be
        started.
        """
        image = inspect(content, name)
        return self._keep(name, content, image, image.kind, None)

    def assemble(self, name: str, source: str) -> ImageRow:
        """Assemble and keep a program. Raises LabError "assembly" with `line` and `column`."""
        content = assemble(source, name).elf()
        return self._keep(name, content, inspect(content, name), "assembly", source)

    def keep_snapshot(self, identity: str, content: bytes) -> None:
        """Keep a snapshot's file beside the images."""
        self.contents[identity] = content

    @property
    def total_bytes(self) -> int:
        return sum(map(len, self.contents.values()))

    def _keep(
        self, name: str, content: bytes, image: LoadedImage, kind: ImageKind, source: str | None
    ) -> ImageRow:
        memory = max(_DEFAULT_MIB, -(-image.memory_needed // _MIB))
        if memory > _MAX_MIB:
            raise LabError(
                "image-too-large",
                f"{name} needs {memory} MiB of memory; a guest can have at most {_MAX_MIB} MiB.",
                name=name,
                need_mib=memory,
                limit_mib=_MAX_MIB,
            )
        identity = digest(content)
        self.contents[identity] = content
        self._loaded[identity] = image
        return ImageRow(
            identity, name, False, len(content), memory, kind, None, source, paravirtual=image.paravirtual
        )


def digest(content: bytes) -> str:
    """The id of an uploaded image."""
    return "sha256:" + hashlib.sha256(content).hexdigest()
