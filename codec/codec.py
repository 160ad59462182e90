"""An image becomes bytes, and bytes become an image.

    image ─▶ contents ─▶ pack ─▶ bytes ─▶ unpack ─▶ contents ─▶ picture ─▶ image
           (networks)  (entropy models)  (entropy models)     (networks)

The networks are run by a `Runtime`; all else is numpy: padding, noise, the quantizer's centers, label maps, heat maps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from cGAN.labels import LabelMap
from cGAN.selection import heat_map
from codec import label_maps
from codec.checkpoint import Checkpoint, read_checkpoint
from codec.concealment import conceal
from codec.container import Header, check_size, coded_size, join, pack, split, unpack
from codec.memory import check_memory
from codec.noise import noise
from codec.pictures import STRIDE, pad, padded_size, resize, to_float, to_uint8
from codec.runtime import Runtime, load_runtime
from config import UserError, config_test


@dataclass(frozen=True)
class Contents:
    """What a file holds of an image, as arrays of uint8. h and w are a sixteenth of the padded sides."""

    symbols: np.ndarray  # (h, w, K) of the feature map's first K channels
    code: np.ndarray | None = None  # (..., ..., C') of the label map
    mask: np.ndarray | None = None  # (h, w, 1) the heat map; where it is 0, the symbols mean nothing and are not in the file


class Codec:
    """A checkpoint and what runs its networks. `knobs.channels` is for encoding, the other knobs are for decoding."""

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, knobs: config_test | None = None):
        self.checkpoint, self.runtime, self.knobs = checkpoint, runtime, knobs or config_test()
        self.config = checkpoint.config
        self._coders = checkpoint.entropy_models
        self._parts = list(self.config.coded)  # the sections of a payload, in their order
        if (K := self.knobs.channels) > (C := self.config.channel_bottleneck):
            raise UserError(f"channels {K}: the model has {C}; lower --channels")

    @classmethod
    def load(cls, path: str | Path, knobs: config_test | None = None) -> Self:
        """Read a checkpoint, or the newest one of a run's folder, and load the networks."""
        checkpoint, knobs = read_checkpoint(path), knobs or config_test()
        return cls(checkpoint, load_runtime(checkpoint, knobs.runtime), knobs)

    # ------------------------------------------------------------------------------------------------------------------
    # Image <-> bytes
    # ------------------------------------------------------------------------------------------------------------------

    def encode(self, image: np.ndarray, labels: LabelMap | None = None, scale: int = 0) -> bytes:
        """Return the bytes of a .gc file of an image (H, W, 3) uint8. `decode` is the inverse, but for the loss.

        labels: the image's label map, for a model whose files have one. What labels.preserved says, of a selective model,
        is kept, and the rest is synthesized; without it all is kept.
        scale: 0..63. The image is coded at 2^(-scale/8) times its size, and the decoder enlarges the picture again. It does
        not go with a label map.
        """
        height, width = image.shape[:2]
        check_size(width, height)
        if scale and self._parts != ["symbols"]:
            raise UserError("the files of this model have more than symbols: it codes an image at its own size only")
        size = coded_size(height, width, scale)
        check_memory(*size, self.runtime.bytes_per_pixel, self.config)
        contents = self.contents(resize(image, *size), labels)
        symbols = contents.symbols[:, :, : self.knobs.channels or None]
        return self.pack(height, width, Contents(symbols, contents.code, contents.mask), scale)

    def decode(self, data: bytes) -> np.ndarray:
        """Return the image (H, W, 3) uint8 of a .gc file. Raises UserError for damage, or for another model's file."""
        header, payload, crc = unpack(data)
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
        if header.width * header.height > self.knobs.max_pixels:
            raise UserError(f"{header.width}x{header.height} px is over max_pixels ({self.knobs.max_pixels}); "
                            f"raise the cap with -k max_pixels=N")  # fmt: skip
        check_memory(*header.coded_size, self.runtime.bytes_per_pixel, self.config)

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
            shape = padded_height // side, padded_width // side, self.config.coded["code"][0]
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
        x = to_float(pad(image))
        mask = None
        if self.config.selective:
            preserved = None if labels is None else labels.preserved
            mask = heat_map(pad(np.ones(image.shape[:2], bool) if preserved is None else preserved != 0))
            x *= np.kron(mask, np.ones((STRIDE, STRIDE), np.float32))[..., None]
            mask = mask[..., None].astype(np.uint8)
        return Contents(self.runtime.encode(x[None])[0], self._code(labels), mask)

    def _code(self, labels: LabelMap | None) -> np.ndarray | None:
        """Return the symbols that stand for the label map in the file; None for a model whose files have none."""
        if not self.config.code_channels:
            return None
        if labels is None:
            raise UserError("the files of this model have a label map: it needs that of the image")
        labels = label_maps.padded(labels)
        if self.config.semantic_code == "lossless":
            return label_maps.map_symbols(labels, self.config)
        return self.runtime.encode_labels(label_maps.label_channels(labels, self.config)[None])[0]

    def picture(
        self, contents: Contents, height: int, width: int, crc: int = 0, received: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the image (height, width, 3) uint8 of a file's contents. The file's crc and the knob seed its noise.

        G sees channels that the file does not have as 0. received: (h, w), False where symbols were lost and are concealed.
        """
        config = self.config
        w_hat = self.checkpoint.centers[contents.symbols]
        if received is not None:
            w_hat = conceal(w_hat, received)
        w_hat = np.pad(w_hat, ((0, 0), (0, 0), (0, config.channel_bottleneck - w_hat.shape[2])))
        v = noise(config.noise_shape(1, *w_hat.shape[:2]), crc, self.knobs.noise_seed) if config.sample_noise else None
        side = []
        if contents.code is not None:
            lossless = config.semantic_code == "lossless"
            code = contents.code
            side.append(label_maps.code_channels(code, config) if lossless else self.checkpoint.centers[code])
        if contents.mask is not None:
            side.append(contents.mask.astype(np.float32))
            w_hat *= side[-1]
        x_hat = self.runtime.generate(w_hat[None], v, np.concatenate(side, axis=-1)[None] if side else None)
        return to_uint8(x_hat[0])[:height, :width]

    def reconstruct(self, image: np.ndarray, labels: LabelMap | None = None) -> np.ndarray:
        """Return what comes back of an image, without making a file."""
        return self.picture(self.contents(image, labels), *image.shape[:2])
