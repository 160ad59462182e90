#!/usr/bin/env python3
"""Make a checkpoint of this project from one of the seed's, which TensorFlow 1 wrote.

    python3 tools/import_tf1.py noise_model/model.ckpt-55 -o checkpoints/seed_noise
    python3 tools/import_tf1.py cgan/model.ckpt-50 -o checkpoints/seed_cgan --classes data/cityscapes_classes.csv
    python3 train.py --fit-entropy -r checkpoints/seed_noise -ds cityscapes      # then its files are smaller

Names and shapes of the variables say what there is: the width, the residual blocks, C, the noise branch, the semantic encoder.
Layers of a kind are taken in the order of their numbers. --ema takes the averaged weights, where the checkpoint has them; the
state of the optimizers and the discriminators are left out, as are the biases before an instance norm, which cancels them.

A semantic encoder saw the label map as a picture of its classes' colours. Ours sees a channel for each class, so its first
kernel becomes the product with these colours, which --classes lists: the same numbers, for maps of these colours. Where G
sees noise and a label map, the seed's order is taken to be w_hat, label map, noise.
"""

import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import UserError, config_train
from gcodec.checkpoint import write_checkpoint
from gcodec.entropy import integer_frequencies
from gcodec.files import refuse_existing_folder, warn
from gcodec.labels import Classes
from utils import Utils

SCOPES = {  # our networks, and where the seed has their variables
    "encoder": "generator/encoder_image/",
    "generator": "generator/decoder/",
    "noise_generator": "generator/noise_generator/",
    "semantic_encoder": "generator/encoder_semantic_map/",
}
KINDS = {  # layers of TensorFlow 1, and ours
    "conv2d": "Conv2D",
    "conv2d_transpose": "Conv2DTranspose",
    "dense": "Dense",
    "InstanceNorm": "Norm",
    "batch_normalization": "BatchNormalization",
}
AVERAGE = "/ExponentialMovingAverage"
OPTIMIZER = re.compile(r"/(Adam(_\d+)?|Momentum|RMSProp(_\d+)?)$")


@Utils.command
def main(argv: list[str] | None = None) -> int:
    parser = Utils.parser(__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", help="the common beginning of its files' names, or their folder")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the checkpoint to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is there already")
    parser.add_argument("--classes", metavar="CSV", help="columns index, name, R, G, B; for one with a semantic encoder")
    parser.add_argument("--ema", action="store_true", help="the averages of the weights")
    args = parser.parse_args(argv)
    output = Path(args.output)
    refuse_existing_folder(output, args.overwrite)
    classes = Classes.read(args.classes) if args.classes else None
    layers = sort_layers(read_variables(args.checkpoint, args.ema))
    config = find_knobs(layers, classes, args.checkpoint)
    arrays = convert(layers, config, args.checkpoint)
    write_checkpoint(output, config, arrays, reachable_frequencies(config), overwrite=args.overwrite)
    branches = ", noise" * config.sample_noise + ", label maps" * config.use_conditional_GAN
    print(f"{output}: W={config.width}, {config.n_residual_blocks} residual blocks, C={config.channel_bottleneck}{branches}")
    return 0


def read_variables(path: str, ema: bool) -> dict[str, np.ndarray]:
    """The generator's variables of a checkpoint, by name; with `ema` the averages of those that have one."""
    prefix = path.removesuffix(".index")
    with Utils.importing_tensorflow():
        import tensorflow as tf
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"{path}: no checkpoint of TensorFlow there ({str(error).splitlines()[0]})") from None
    names = set(reader.get_variable_to_shape_map())
    wanted = [n for n in names if n.startswith("generator/") and not n.endswith(AVERAGE) and not OPTIMIZER.search(n)]
    if not wanted:
        raise UserError(f"{path}: has no variables below generator/: not one of the seed's")
    if ema and not any(n + AVERAGE in names for n in wanted):
        raise UserError(f"{path}: has no averages; leave --ema out")
    return {n: reader.get_tensor(n + AVERAGE if ema and n + AVERAGE in names else n) for n in wanted}


def sort_layers(variables: dict[str, np.ndarray]) -> dict[str, dict[str, list[dict]]]:
    """Group variables by network and kind of layer: lists of layers in their order, each a dictionary leaf -> (name, array)."""
    found: dict = {}
    odd = []
    for name, array in variables.items():
        network = next((network for network, scope in SCOPES.items() if name.startswith(scope)), None)
        *above, layer, leaf = name.split("/")
        stem, number = _numbered(layer)
        kind = KINDS.get(stem)
        if network is None or kind is None:
            odd.append(name)
            continue
        place = (_natural("/".join(above)), number)
        found.setdefault(network, {}).setdefault(kind, {}).setdefault(place, {})[leaf] = (name, array)
    if odd:
        warn(f"left out, as no part of a network of ours: {', '.join(sorted(odd))}")
    return {
        network: {kind: [layers[place] for place in sorted(layers)] for kind, layers in kinds.items()}
        for network, kinds in found.items()
    }


def find_knobs(layers: dict, classes: Classes | None, path: str) -> config_train:
    """The knobs that rebuild the seed's networks, from the shapes of its variables."""
    try:
        E, G = (layers[network]["Conv2D"] for network in ("encoder", "generator"))
        width, C = (E[i]["kernel"][1].shape[-1] for i in (-2, -1))
        knobs = {"width": width, "channel_bottleneck": C, "n_residual_blocks": (len(G) - 2) // 2}
        if "noise_generator" in layers:
            noise_dim = layers["noise_generator"]["Dense"][0]["kernel"][1].shape[0]
            knobs |= {"sample_noise": True, "noise_norm": "batch", "noise_dim": noise_dim}
    except (KeyError, IndexError) as error:
        raise UserError(f"{path}: not one of the seed's: it has no {error} where its encoder, decoder or noise is") from None
    if "semantic_encoder" in layers:
        if classes is None:
            raise UserError(f"{path}: has a semantic encoder, of coloured label maps: name their classes with --classes")
        knobs |= {"use_conditional_GAN": True, "semantic_code": "learned"}
        knobs |= {"classes": str(classes), "n_classes": len(classes)}
    return config_train(bottleneck_norm=True, quantizer_distance="absolute", **knobs)


def convert(layers: dict, config: config_train, path: str) -> dict[str, np.ndarray]:
    """Arrays by the names of our variables. Raises UserError that lists what is missing; a warning lists what is left over."""
    with Utils.importing_tensorflow():
        from model import Model, numbered_names
    model = Model(config)
    numbered = numbered_names(model.networks)
    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []
    used: set[str] = set()
    for name, var in model.weights.items():
        network, layer, leaf = numbered[name].split("/")
        kind, _, number = layer.rpartition("_")
        if kind == "Quantizer":
            arrays[name] = var.numpy()
            continue
        of_kind = layers.get(network, {}).get(kind, [])
        source = of_kind[int(number)] if int(number) < len(of_kind) else {}
        if leaf not in source:
            problems.append(f"{SCOPES[network]}..., {kind} {number}: no {leaf}")
            continue
        used.update(original for original, _ in source.values())  # a bias before a norm counts as used
        array = source[leaf][1]
        if name == "semantic_encoder/first/kernel":
            array = over_classes(array, Classes.parse(config.classes, config.n_classes))
        if name == "generator/first/kernel":
            array = reorder(array, config)
        if array.shape != tuple(var.shape):
            problems.append(f"{source[leaf][0]}: {array.shape}, where {tuple(var.shape)} is wanted")
        arrays[name] = array
    if problems:
        raise UserError(f"{path}: not the seed's networks: {'; '.join(problems)}")
    found = [layer for kinds in layers.values() for of_kind in kinds.values() for layer in of_kind]
    if extra := sorted({original for layer in found for original, _ in layer.values()} - used):
        warn(f"left over: {', '.join(extra)}")
    return arrays


def over_classes(kernel: np.ndarray, classes: Classes) -> np.ndarray:
    """A kernel over RGB in [-1, 1], (k, k, 3, f) -> that over one-hot classes, (k, k, n, f), with the same result."""
    return np.einsum("yxcf,nc->yxnf", kernel, classes.colours / np.float32(127.5) - 1).astype(np.float32)


def reorder(kernel: np.ndarray, config: config_train) -> np.ndarray:
    """The first kernel of G: the input's channels from w_hat, label map, noise to ours: w_hat, noise, label map."""
    if not (config.sample_noise and config.use_conditional_GAN):
        return kernel
    w_hat, label_map, noise = np.split(kernel, (config.channel_bottleneck, 2 * config.channel_bottleneck), axis=2)
    return np.concatenate([w_hat, noise, label_map], axis=2)


def reachable_frequencies(config: config_train) -> np.ndarray:
    """Tables for the symbols that a feature map after a ReLU can have, the centers from 0 up: all alike."""
    reachable = np.array(config.centers) >= 0
    return integer_frequencies(np.tile(reachable / reachable.sum(), (config.channel_bottleneck, 1)))


def _numbered(layer: str) -> tuple[str, int]:
    """Split "conv2d_3" into "conv2d" and 3; a name without a number has the number 0."""
    stem, _, number = layer.rpartition("_")
    return (stem, int(number)) if stem and number.isdigit() else (layer, 0)


def _natural(text: str) -> tuple:
    """A key that sorts a10 behind a9."""
    return tuple((not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", text))


if __name__ == "__main__":
    sys.exit(main())
