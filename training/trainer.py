"""Training of a model: the variables, their optimizers and averages, the step that updates them, and checkpoints of it all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from config import UserError, config_train
from gcodec import Codec
from gcodec.checkpoint import (
    CENTERS,
    Arrays,
    Checkpoint,
    read_training_state,
    restore,
    unsaved_checkpoint,
    write_checkpoint,
)
from gcodec.labels import LabelBatch
from model import Model, TensorFlowRuntime, build_discriminator, named_weights, with_todays_names
from training.devices import training_precision
from training.rate import Rate, average_decay
from training.schedule import learning_rates, stage
from training.transfer import Transferred, check_changes, transfer
from utils import Utils

MAKERS_OF_FILES = ("encoder", "quantizer", "semantic_encoder")  # networks that the knob freeze_encoder freezes together
CONTEXT_LEARNING_RATE = 2e-3  # of the context model that learns along (knob rate_model), by Adam


class Snapshot(NamedTuple):
    """What a checkpoint of a step has: what compressing needs of it, and the state of training."""

    step: int
    config: config_train
    weights: Arrays
    frequencies: np.ndarray
    state: Arrays

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(array).all() for arrays in (self.state, self.weights) for array in arrays.values())

    def write(self, folder: Path) -> None:
        """Write the checkpoint to a new folder, which appears whole or not at all. Raises UserError for broken weights."""
        write_checkpoint(folder, self.config, self.weights, self.frequencies, self.state)


class Trainer:
    """A model, and all that training adds to it. `step`: how many steps were trained."""

    def __init__(self, config: config_train):
        if config.recompute:
            Utils.return_freed_memory()
        self.config = config
        self.step = 0
        self.precision = training_precision(config.mixed_precision)
        self.rate = Rate(config)
        self.model = Model(config, policy=self.precision, rate=self.rate)
        self.discriminator = self.model.discriminator
        self.context_network = self.rate.context_network
        self.G_variables = [v for net in self.model.networks.values() for v in net.trainable_variables]
        self.without_E = [
            v for name, net in self.model.networks.items() if name not in MAKERS_OF_FILES for v in net.trainable_variables
        ]
        self.D_variables = self.discriminator.trainable_variables
        self.G_optimizer = _optimizer(config, self.G_variables)
        self.D_optimizer = _optimizer(config, self.D_variables)
        if self.context_network:
            self.context_optimizer = keras.optimizers.Adam(CONTEXT_LEARNING_RATE)
            self.context_optimizer.build(self.context_network.trainable_variables)
        # tf.train.ExponentialMovingAverage has the same formula, but averages only variables, and the histogram is of symbols.
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.averages = [tf.Variable(v, trainable=False, aggregation=first) for v in self.G_variables]
        self.strategy = tf.distribute.get_strategy()
        self._compiled_step = tf.function(  # reduce_retracing: of images of many sizes, two traces
            self._step_of_all, reduce_retracing=True, jit_compile=config.jit_compile
        )

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The networks whose weights are part of the state, by name."""
        return {**self.model.networks, "discriminator": self.discriminator}

    def state(self) -> dict[str, Any]:
        """Return all variables that training changes, by name. With `step`, this is the whole state."""
        state = named_weights(self.networks)
        state["histogram"] = self.rate.histogram
        state |= self.rate.controller
        numbered = {
            "average": self.averages,
            "G_optimizer": self.G_optimizer.variables,
            "D_optimizer": self.D_optimizer.variables,
        }
        if self.context_network:
            numbered["context_network"] = self.context_network.variables
            numbered["context_optimizer"] = self.context_optimizer.variables
        for name, variables in numbered.items():
            state |= {f"{name}/{i:03d}": var for i, var in enumerate(variables)}
        return state

    # ------------------------------------------------------------------------------------------------------------------
    # Checkpoints
    # ------------------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write a checkpoint to a new folder, which appears whole or not at all. Raises UserError for broken weights."""
        self.snapshot().write(folder)

    def snapshot(self) -> "Snapshot":
        """Return a copy of all that a checkpoint of this step has, in the computer's memory."""
        variables = self.state()
        state: Arrays = {name: var.numpy() for name, var in variables.items()}
        state["step"] = np.array(self.step)
        copies = {id(var): state[name] for name, var in variables.items()}  # most of what compressing needs is among them
        sources = {name: self._average_of.get(id(var), var) for name, var in self.model.weights.items()}
        weights = {name: copies[id(var)] if id(var) in copies else var.numpy() for name, var in sources.items()}
        return Snapshot(self.step, self.config, weights, self.rate.frequencies(), state)

    @property
    def size(self) -> int:
        """The bytes of all variables that training changes."""
        return sum(var.numpy().nbytes for var in self.state().values())

    @classmethod
    def start_from(cls, checkpoint: Checkpoint, changes: Mapping[str, Any]) -> Self:
        """Go on from a checkpoint, its knobs changed. One without training.npz gives its weights, at step 0."""
        folder, old, state = checkpoint.folder, checkpoint.knobs(config_train), read_training_state(checkpoint.folder)
        config = old.replace(changes)
        check_changes(old, config, folder, with_state=state is not None)
        trainer = cls(config)
        restore(trainer.model.weights, with_todays_names(checkpoint.weights, trainer.model.networks), folder)
        _assign(trainer.averages, trainer.G_variables)
        if state is not None:
            trainer.load_state(state, folder)
        return trainer

    def load_state(self, state: Arrays, folder: Path) -> None:
        """Take the state that `save` wrote to a checkpoint. Raises UserError for another one."""
        step = state.get("step", np.array(-1))
        if step.shape != () or step.dtype.kind not in "iu" or not 0 <= step < 2**31:
            raise UserError(f"checkpoint {folder}: training.npz has no step")
        arrays = with_todays_names({name: array for name, array in state.items() if name != "step"}, self.networks)
        restore(self.state(), arrays, folder)
        self.step = int(step)

    @classmethod
    def transfer(cls, checkpoint: Checkpoint, changes: Mapping[str, Any]) -> tuple[Self, Transferred]:
        """Start at step 0 from a checkpoint's knobs, changed, and from its weights as far as they fit.

        Centers among the changes replace the checkpoint's. A training.npz also gives the discriminator's weights, and the
        weight of the bits, unless lambda_rate is among the changes.
        Returns the trainer, and what became of the weights.
        """
        old = checkpoint.knobs(config_train)
        trainer = cls(old.replace(changes))
        arrays, networks = dict(checkpoint.weights), dict(trainer.model.networks)
        theirs = dict(Model(old).networks)
        if "centers" in changes and not np.array_equal(checkpoint.centers, np.float32(changes["centers"])):
            del arrays[CENTERS]
        if (state := read_training_state(checkpoint.folder)) is not None:
            arrays |= {name: array for name, array in state.items() if name.startswith("discriminator/")}
            networks["discriminator"] = trainer.discriminator
            theirs["discriminator"] = build_discriminator(old)
            if "rate_integral" in state and "lambda_rate" not in changes:
                restore({"rate_integral": trainer.rate.integral}, {"rate_integral": state["rate_integral"]}, checkpoint.folder)
        arrays = with_todays_names(arrays, theirs)
        transferred = transfer(arrays, old, named_weights(networks), trainer.config)
        _assign(trainer.averages, trainer.G_variables)
        return trainer, transferred

    @contextmanager
    def averaged_codec(self) -> Iterator[Codec]:
        """Yield a codec with the averaged weights, those that compress.py will use. The networks have them meanwhile."""
        raw = [var.numpy() for var in self.G_variables]
        _assign(self.G_variables, self.averages)
        try:
            checkpoint = unsaved_checkpoint(self.config, self._averaged_weights(), self.rate.frequencies())
            yield Codec(checkpoint, self._runtime)
        finally:
            _assign(self.G_variables, raw)

    @cached_property
    def _runtime(self) -> TensorFlowRuntime:
        """Runs the networks for `averaged_codec`. There is one, because each takes time and memory to trace its graph."""
        return TensorFlowRuntime(self.model)

    def _averaged_weights(self) -> Arrays:
        return {name: self._average_of.get(id(var), var).numpy() for name, var in self.model.weights.items()}

    @property
    def _average_of(self) -> dict[int, Any]:
        """The running averages, by the identity of the variables that they follow."""
        return {id(var): average for var, average in zip(self.G_variables, self.averages, strict=True)}

    # ------------------------------------------------------------------------------------------------------------------
    # The train step
    # ------------------------------------------------------------------------------------------------------------------

    def train_step(self, x: tf.Tensor, labels: LabelBatch | None = None) -> dict[str, tf.Tensor]:
        """Update all that the present stage trains, once, on images x (B, H, W, 3) in [-1, 1]. Return the loss terms.

        With several devices, these share the images of this process, and all train on those of all processes.
        """
        if self.step == self.config.distortion_steps:  # from here on the averaged weights are trained further: they are
            _assign(self.G_variables, self.averages)  # better, and a frozen encoder then makes the files that it will make
            _restart(self.G_optimizer)  # its moments are those of other losses, and can make the first steps far too large
        self.G_optimizer.learning_rate, self.D_optimizer.learning_rate = learning_rates(self.config, self.step)
        x, labels = self._per_replica(x), labels and LabelBatch(*map(self._per_replica, labels))
        terms = self._compiled_step(x, labels, tf.constant(self.step), stage(self.config, self.step)[0])
        self.step += 1
        return terms

    def _per_replica(self, batch: tf.Tensor) -> Any:
        """Divide images or labels of this process among its devices."""
        if self.strategy.num_replicas_in_sync == 1:
            return batch
        shares = iter(tf.split(batch, len(self.strategy.extended.worker_devices)))
        return self.strategy.experimental_distribute_values_from_function(lambda _: next(shares))

    def _step_of_all(self, x, labels, step, stage: str) -> dict[str, tf.Tensor]:
        """Make the train step on all devices, and return the mean of their loss terms."""
        terms = self.strategy.run(self._step, args=(x, labels, step, stage))
        terms = {name: self.strategy.reduce(tf.distribute.ReduceOp.MEAN, term, axis=None) for name, term in terms.items()}
        terms["PSNR"] = 10 * tf.math.log(4 / tf.maximum(terms["distortion"], 1e-10)) / np.log(10)
        return terms

    def _step(self, x, labels: LabelBatch | None, step, stage: str) -> dict[str, tf.Tensor]:
        """The train step: one forward pass of all networks, and the update of each that the stage trains."""
        config = self.config
        E_learns = stage == "distortion" or (stage == "gan" and not config.freeze_encoder)
        with tf.GradientTape(persistent=True) as tape:
            losses, forward = self.model.forward(x, labels, step, stage)
        if stage != "discriminator":
            self._descend(self.G_optimizer, tape, losses.G, self.G_variables if E_learns else self.without_E)
            share = 1 - average_decay(config.ema_decay, step)
            for average, var in zip(self.averages, self.G_variables, strict=True):
                average.assign_sub(share * (average - var))
        if self.context_network:
            self._descend(self.context_optimizer, tape, losses.terms["bpp"], self.context_network.trainable_variables)
        if losses.D is not None:
            self._descend(self.D_optimizer, tape, losses.D, self.D_variables)
            if config.weight_clipping:
                for var in self.D_variables:
                    var.assign(ops.clip(var, -config.max_c, config.max_c))
        self.rate.count(forward.hard, forward.m, step)
        terms = dict(losses.terms)
        if config.selective:
            terms["preserved"] = tf.reduce_mean(forward.visible)
        if config.target_bpp:
            if E_learns:  # or else the bits would not follow their weight
                self.rate.steer(losses.terms["bpp"])
            terms["lambda_rate"] = self.rate.weight
        return terms

    def _descend(self, optimizer, tape: tf.GradientTape, loss, variables: list) -> None:
        """Descend the gradient of a loss, a mean over this replica's images. The optimizer adds up those of all replicas."""
        upstream = optimizer.scale_loss(tf.ones_like(loss)) / self.strategy.num_replicas_in_sync
        optimizer.apply(tape.gradient(loss, variables, output_gradients=upstream), variables)


def _assign(variables: list, values: list) -> None:
    for var, value in zip(variables, values, strict=True):
        var.assign(value)


def _restart(optimizer: keras.optimizers.Optimizer) -> None:
    """Set an optimizer's moments and step count to zero, as those of a new one."""
    for var in optimizer.variables:
        if var.name not in ("learning_rate", "dynamic_scale"):
            var.assign(ops.zeros_like(var))


def _optimizer(config: config_train, variables: list) -> keras.optimizers.Optimizer:
    decay = {"weight_decay": config.weight_decay or None}
    optimizer = {
        "adam": lambda: keras.optimizers.Adam(beta_1=config.beta_1, **decay),
        "momentum": lambda: keras.optimizers.SGD(momentum=config.momentum, **decay),
        "rmsprop": lambda: keras.optimizers.RMSprop(**decay),
        "sgd": lambda: keras.optimizers.SGD(**decay),
    }[config.optimizer]()
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "centers", "scale"])
    if config.mixed_precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
