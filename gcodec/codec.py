"""An image becomes bytes, and bytes become an image.

    image ─▶ contents ─▶ pack ─▶ bytes ─▶ unpack ─▶ contents ─▶ picture ─▶ image
           (networks)  (entropy models)  (entropy models)     (networks)

The networks are run by a `Runtime`; all else is numpy: padding, noise, the quantizer's centers, label maps, heat maps.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from gcodec.checkpoint import Checkpoint, read_checkpoint
from gcodec.concealment import conceal
from gcodec.container import MAX_SCALE, Header, check_size, coded_size, join, pack, split, unpack
from gcodec.errors import UserError, WrongTypeError, WrongValueError
from gcodec.label_code import code_input, label_input, map_symbols
from gcodec.labels import LabelMap
from gcodec.memory import check_memory
from gcodec.noise import noise
from gcodec.onnx_runtime import OnnxRuntime
from gcodec.pictures import MAX_PIXELS, STRIDE, check_image, pad, padded_size, resize, to_float, to_uint8
from gcodec.runtime import Runtime, check_finite
from gcodec.selection import heat_map


@dataclass(frozen=True)
class Contents:
    """What a file holds of an image, as arrays of uint8. h and w are a sixteenth of the padded sides."""

    symbols: np.ndarray  # (h, w, K) of the feature map's first K channels
    code: np.ndarray | None = None  # (..., ..., C') of the label map
    mask: np.ndarray | None = None  # (h, w, 1) the heat map; where it is 0, the symbols mean nothing and are not in the file


class Codec:
    """A checkpoint and what runs its networks.

    Threads may share one. A pickled one is loaded again where it is unpickled, such as in multiprocessing's processes; let it
    start these by `spawn`. ONNX Runtime's threads do not survive a fork: a process that is forked after the first image hangs
    when it ends.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        runtime: Runtime,
        *,
        channels: int = 0,  #               encode only the first K channels of the feature map; 0: all
        max_pixels: int = MAX_PIXELS,  #    of a picture that is decoded
        noise_seed: int = 0,  #             mixed with the file's own; another value gives other noise
    ):
        """Raises UserError for more channels than the model has."""
        self.checkpoint, self.runtime = checkpoint, runtime
        self.channels, self.max_pixels, self.noise_seed = channels, max_pixels, noise_seed
        self.config = checkpoint.config
        self._coders = checkpoint.entropy_models
        self._parts = list(self.config.sections)  # the sections of a payload, in their order
        if not 0 <= channels <= (C := self.config.channel_bottleneck):
            raise UserError(f"channels {channels}: the model has {C}; lower it")

    def __reduce__(self) -> tuple:
        options: dict[str, Any] = {name: getattr(self, name) for name in ("channels", "max_pixels", "noise_seed")}
        return functools.partial(type(self), **options), (self.checkpoint, self.runtime)

    @classmethod
    def load(cls, path: str | Path, runtime: Callable[[Checkpoint], Runtime] = OnnxRuntime, **options: int) -> Self:
        """Read a checkpoint, and load the networks. Raises UserError for whatever is wrong with it.

        path: a checkpoint's folder, a training run's folder, whose newest checkpoint is taken, or the name of a model that
        ships, such as photo_c8. runtime: what makes the runtime that runs the networks. options: those of Codec itself.
        """
        checkpoint = read_checkpoint(path)
        return cls(checkpoint, runtime(checkpoint), **options)

    # ------------------------------------------------------------------------------------------------------------------
    # Image <-> bytes
    # ------------------------------------------------------------------------------------------------------------------

    def encode(self, image: np.ndarray, labels: LabelMap | None = None, scale: int = 0) -> bytes:
        """Return the bytes of a .gc file of an image (H, W, 3) uint8. `decode` is the inverse, but for the loss.

        labels: the image's label map, for a model whose files have one. What labels.preserved says, of a selective model,
        is kept, and the rest is synthesized; without it all is kept.
        scale: 0..63. The image is coded at 2^(-scale/8) times its size, and the decoder enlarges the picture again. It does
        not go with a label map.
        Raises WrongTypeError or WrongValueError, which are a TypeError and a ValueError, for another array or scale, and
        UserError for an image over 65535 px a side or larger than memory allows.
        """
        check_image(image)
        if isinstance(scale, bool) or not isinstance(scale, int | np.integer) or scale not in range(MAX_SCALE + 1):
            raise WrongValueError(f"scale {scale!r}: a whole number from 0 to {MAX_SCALE}")
        height, width = image.shape[:2]
        check_size(width, height)
        if scale and self._parts != ["symbols"]:
            raise UserError("the files of this model have more than symbols: it codes an image at its own size only")
        size = coded_size(height, width, scale)
        check_memory(*size, self.runtime)
        contents = self.contents(resize(image, *size), labels)
        symbols = contents.symbols[:, :, : self.channels or None]
        return self.pack(height, width, Contents(symbols, contents.code, contents.mask), scale)

    def decode(self, data: bytes) -> np.ndarray:
        """Return the image (H, W, 3) uint8 of a .gc file. Raises UserError for damage, or for another model's file."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise WrongTypeError(f"a .gc file is bytes, not {type(data).__name__}")
        header, payload, crc = unpack(bytes(data))
        self.check(header)
        size = header.coded_size
        contents = self._unpack(*size, header.channels or self.config.channel_bottleneck, payload)
        return resize(self.picture(contents, *size, crc), header.height, header.width)

    def check(self, header: Header) -> None:
        """Raise UserError for the header of a file that this model cannot decode, or that max_pixels or memory do not allow."""
        if header.fingerprint != self.checkpoint.fingerprint:
            raise UserError(f"made with another checkpoint: its fingerprint is {header.fingerprint.hex()}, "
                            f"this one's {self.checkpoint.fingerprint.hex()}; name the right one with -r, or "
                            f"leave -r out")  # fmt: skip
        C = self.config.channel_bottleneck
        if header.channels >= C or (header.scale and self._parts != ["symbols"]):
            raise UserError(f"damaged ({header.channels} channels, scale {header.scale}, of a model of {C} channels)")
        if header.width * header.height > self.max_pixels:
            raise UserError(f"{header.width}x{header.height} px is over max_pixels ({self.max_pixels}); "
                            f"raise it (decompress.py: -k max_pixels=N)")  # fmt: skip
        check_memory(*header.coded_size, self.runtime)

    def sections(self, data: bytes) -> dict[str, bytes]:
        """Return what is in a file, by what it codes: "symbols", and "code" and "mask" if the model has these."""
        return split(unpack(data).payload, self._parts)

    def pack(self, height: int, width: int, contents: Contents, scale: int = 0) -> bytes:
        """Return the bytes of a file with these contents, of an image of this size, which was coded at this scale."""
        mask = None if contents.mask is None else contents.mask[:, :, 0]
        sections = []
        for name in self._parts:
            values = getattr(contents, name)
            sections.append(self._coders[name].encode(values, mask if name == "symbols" else None))
        K, C = contents.symbols.shape[2], self.config.channel_bottleneck
        channels = 0 if K == C else K
        return pack(Header(width, height, scale, channels, self.checkpoint.fingerprint), join(sections))

    def _unpack(self, height: int, width: int, channels: int, payload: bytes) -> Contents:
        padded_height, padded_width = padded_size(height, width)
        h, w = padded_height // STRIDE, padded_width // STRIDE
        sections, code, mask = split(payload, self._parts), None, None
        if "code" in sections:
            side = self.config.semantic_scale if self.config.semantic_code == "lossless" else STRIDE
            shape = padded_height // side, padded_width // side, self.config.sections["code"][0]
            code = self._coders["code"].decode(sections["code"], shape)
        if "mask" in sections:
            mask = self._coders["mask"].decode(sections["mask"], (h, w, 1))
        where = None if mask is None else mask[:, :, 0]
        return Contents(self._coders["symbols"].decode(sections["symbols"], (h, w, channels), where), code, mask)

    # ------------------------------------------------------------------------------------------------------------------
    # Image <-> contents
    # ------------------------------------------------------------------------------------------------------------------

    def contents(self, image: np.ndarray, labels: LabelMap | None = None) -> Contents:
        """Return what a file of an image (H, W, 3) uint8 holds, in all C channels. Where it is not preserved, E sees gray."""
        check_image(image)
        self._check_labels(labels, image.shape[:2])
        x = to_float(pad(image))
        mask = None
        if self.config.selective:
            preserved = None if labels is None else labels.preserved
            mask = heat_map(pad(np.ones(image.shape[:2], bool) if preserved is None else preserved != 0))
            x *= np.kron(mask, np.ones((STRIDE, STRIDE), np.float32))[..., None]
            mask = mask[..., None].astype(np.uint8)
        return Contents(self.runtime.encode(x[None])[0], self._code(labels), mask)

    def _check_labels(self, labels: LabelMap | None, size: tuple[int, ...]) -> None:
        """Raise WrongTypeError or WrongValueError unless a label map has the image's size, and the model's classes."""
        if labels is None:
            return
        if not isinstance(labels, LabelMap):
            raise WrongTypeError(f"labels is a LabelMap, not {type(labels).__name__}")
        labels.map(lambda plane: _check_plane(plane, size))
        n = self.config.n_classes
        if labels.classes.dtype.kind not in "ui" or labels.classes.min() < 0 or labels.classes.max() >= n:
            raise WrongValueError(f"the classes of a label map are whole numbers in 0..{n - 1}, the last of which is void")
        if self.config.code_channels and self.config.use_instances and labels.boundaries is None:
            raise WrongValueError("this model wants a label map with the boundaries of instances; see labels.with_boundaries")

    def _code(self, labels: LabelMap | None) -> np.ndarray | None:
        """Return the symbols that stand for the label map in the file; None for a model whose files have none."""
        if not self.config.code_channels:
            return None
        if labels is None:
            raise UserError("the files of this model have a label map: it needs that of the image")
        padded = labels.map(pad)
        if self.config.semantic_code == "lossless":
            return map_symbols(padded.classes, padded.boundaries, self.config).astype(np.uint8)
        return self.runtime.encode_labels(label_input(padded.classes, padded.boundaries, self.config)[None])[0]

    def picture(
        self, contents: Contents, height: int, width: int, crc: int = 0, received: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the image (height, width, 3) uint8 of a file's contents. The file's crc and noise_seed seed its noise.

        G sees channels that the file does not have as 0. received: (h, w), False where symbols were lost and are concealed.
        """
        config = self.config
        w_hat = self.checkpoint.centers[contents.symbols]
        if received is not None:
            w_hat = conceal(w_hat, received)
        w_hat = np.pad(w_hat, ((0, 0), (0, 0), (0, config.channel_bottleneck - w_hat.shape[2])))
        v = noise(config.noise_shape(1, *w_hat.shape[:2]), crc, self.noise_seed) if config.sample_noise else None
        side = []
        if contents.code is not None:
            lossless = config.semantic_code == "lossless"
            code = contents.code
            side.append(code_input(code, config) if lossless else self.checkpoint.centers[code])
        if contents.mask is not None:
            side.append(contents.mask.astype(np.float32))
            w_hat *= side[-1]
        x_hat = self.runtime.generate(w_hat[None], v, np.concatenate(side, axis=-1)[None] if side else None)
        check_finite(x_hat)
        return to_uint8(x_hat[0])[:height, :width]

    def reconstruct(self, image: np.ndarray, labels: LabelMap | None = None) -> np.ndarray:
        """Return what comes back of an image, without making a file."""
        return self.picture(self.contents(image, labels), *image.shape[:2])


def _check_plane(plane: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if not isinstance(plane, np.ndarray) or plane.shape != size:
        raise WrongValueError(f"each plane of a label map is an array of the image's size, {size}, not {np.shape(plane)}")
    return plane
