"""Pillow opens and saves .gc files once this package is imported.

    image = Image.open("photo.gc")  # parses the header; the picture is decoded when it is needed
    image.save("copy.gc")
    image.save("small.gc", model="photo_c4", max_bytes=340)

A file is decoded by its model, which is looked for below FOLDERS. model: the name of a model that ships, or a folder (default:
photo_c8); max_bytes: the largest size whose file has no more bytes is coded (default: the image's own). Only models whose files
have no label map can save.
"""

import functools
import io
from typing import IO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from gcodec.budget import best_file
from gcodec.checkpoint import SHIPPED
from gcodec.codec import Codec
from gcodec.container import HEADER_MOST, check_magic, is_compressed, read_header
from gcodec.errors import UserError
from gcodec.finding import DEFAULT, Checkpoints, Codecs

FOLDERS = [SHIPPED]  # put a folder with your own models here, before the first file is decoded


class GcImageFile(ImageFile.ImageFile):
    """An image whose pixels are decoded by a model. What is wrong with a file is an OSError."""

    format = "GC"
    format_description = "Generative compression"

    def _open(self) -> None:
        try:
            head = self._file.read(HEADER_MOST)
            check_magic(head)
            header, _ = read_header(head)
        except UserError as error:
            raise UnidentifiedImageError(str(error)) from None
        self._size, self._mode = (header.width, header.height), "RGB"
        self._decoded = False

    @property
    def _file(self) -> IO[bytes]:
        assert self.fp is not None
        return self.fp

    def load(self) -> "Image.core.PixelAccess | None":
        if not self._decoded:
            self._file.seek(0)
            data = self._file.read()
            try:
                picture = _codecs().of(data).decode(data)
            except UserError as error:
                raise OSError(str(error)) from None
            if self._exclusive_fp:
                self._file.close()
            self.fp = io.BytesIO(picture.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, "RGB")]
            self._decoded = True
        return super().load()


def save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Write an image as a .gc file. It is converted to RGB."""
    pixels, options = np.asarray(image.convert("RGB")), image.encoderinfo
    try:
        codec = _codec(str(options.get("model", DEFAULT)))
        budget = options.get("max_bytes")
        file.write(codec.encode(pixels) if budget is None else best_file(pixels, [codec], budget).data)
    except UserError as error:
        raise OSError(str(error)) from None


def register() -> None:
    """Tell Pillow about .gc files."""
    Image.register_open(GcImageFile.format, GcImageFile, is_compressed)
    Image.register_save(GcImageFile.format, save)
    Image.register_extension(GcImageFile.format, ".gc")
    Image.register_mime(GcImageFile.format, "image/x-gc")


_codec = functools.cache(Codec.load)


@functools.cache
def _codecs() -> Codecs:
    return Codecs(Checkpoints(FOLDERS))
