"""Training on several GPUs of one machine, or on several machines: which tf.distribute strategy, and who does what.

Each machine runs one process, and TF_CONFIG says which machines there are, as TensorFlow's MultiWorkerMirroredStrategy wants
it. Without TF_CONFIG, the GPUs of this machine train together, as many as divide the knob batch_size. Every replica sees its
share of the batch, so the same knobs give the same training on any number of devices, to rounding; other knobs are refused.
Worker 0 is the chief: it alone writes checkpoints, summaries and pictures.
"""

import json
import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from config import UserError, config_train


@dataclass(frozen=True)
class Cluster:
    """strategy: tf.distribute's; worker: the number of this process among `workers`."""

    strategy: Any
    worker: int = 0
    workers: int = 1

    @property
    def chief(self) -> bool:
        return self.worker == 0

    def check(self, config: config_train) -> None:
        """Raise UserError for knobs that do not go with so many replicas."""
        n = self.strategy.num_replicas_in_sync
        if n > 1 and (obstacle := _obstacle(config)):
            raise UserError(f"{obstacle}, and here are {n}")
        if config.batch_size % n:
            raise UserError(f"knob batch_size: {config.batch_size} images do not go evenly to {n} devices; take a multiple")

    def check_networks(self, networks: Iterable[Any]) -> None:
        """Raise UserError for a Keras network with a batch norm, which would see one replica's share of the batch only."""
        for var in (var for network in networks for var in network.non_trainable_variables):
            if var.name == "moving_mean" and self.strategy.num_replicas_in_sync > 1:
                raise UserError(
                    f"layer {var.path.split('/')[-2]}: is a batch norm, which trains otherwise on several devices; use one "
                    f"device, or another norm"
                )

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any of the workers; all have to ask at the same step."""
        if self.workers == 1:
            return flag
        import tensorflow as tf

        mine = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(float(flag)))
        return float(self.strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None)) > 0

    @contextmanager
    def lost_workers(self) -> Iterator[None]:
        """Within this context, what TensorFlow throws when another worker is gone becomes a UserError."""
        import tensorflow as tf

        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError) as error:
            if self.workers == 1:
                raise
            reason = re.sub(r"{{.*?}}\s*", "", error.message.splitlines()[0])  # names of nodes
            raise UserError(f"another worker is gone ({reason}); start all of them again with -rl") from None


def is_chief() -> bool:
    """Whether this process is the one that writes. Raises UserError for a wrong TF_CONFIG."""
    return "TF_CONFIG" not in os.environ or _read_setting(os.environ["TF_CONFIG"])[1] == 0


def cluster(config: config_train) -> Cluster:
    """Return the devices that TF_CONFIG names, else the GPUs of this machine that the knobs can use, else its one device.

    Call it before TensorFlow's first tensor. Raises UserError.
    """
    if "TF_CONFIG" in os.environ:
        return _workers(*_read_setting(os.environ["TF_CONFIG"]))
    import tensorflow as tf

    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    n, reason = usable_devices(len(gpus), config)
    if len(gpus) > 1:
        print(f"{n} of {len(gpus)} GPUs train" + (f": {reason}" if n < len(gpus) else " together"))
    return Cluster(tf.distribute.MirroredStrategy(gpus[:n]) if n > 1 else tf.distribute.get_strategy())


def usable_devices(n: int, config: config_train) -> tuple[int, str]:
    """Return how many of n devices can train together, at least 1, and the reason why the others cannot."""
    if n > 1 and (obstacle := _obstacle(config)):
        return 1, obstacle
    used = next((k for k in range(n, 1, -1) if config.batch_size % k == 0), 1)
    return used, f"batch_size is {config.batch_size}, and each takes an equal share of it"


def _obstacle(config: config_train) -> str | None:
    """Return why these knobs do not train alike on several devices, as the beginning of a sentence; None if they do."""
    if config.jit_compile:
        return "knob jit_compile: is for one device only"
    if config.spectral_norm or config.weight_clipping:
        return "knobs spectral_norm and weight_clipping: change D on one device only"
    if config.mixed_precision == "float16":
        return "knob mixed_precision: float16 scales the loss of each device apart, so it is for one; bfloat16 is for several"
    if config.discriminator == "dcgan_discriminator":
        return "knob discriminator: the batch norm of dcgan_discriminator sees the images of one device only"
    if config.sample_noise and config.noise_mode == "dcgan" and config.noise_norm == "batch":
        return "knob noise_norm: a batch norm sees the images of one device only"
    return None


# ----------------------------------------------------------------------------------------------------------------------
# Several machines
# ----------------------------------------------------------------------------------------------------------------------


def _read_setting(text: str) -> tuple[list[str], int]:
    """Return the addresses of all workers, and which of them this process is, of TF_CONFIG's text."""
    try:
        setting = json.loads(text)
        workers, task = setting["cluster"]["worker"], setting["task"]
        index = int(task["index"])
        if task["type"] != "worker" or set(setting["cluster"]) != {"worker"} or not 0 <= index < len(workers):
            raise ValueError("all tasks are workers here, the first of them the chief")
    except (ValueError, KeyError, TypeError) as error:
        example = '{"cluster": {"worker": ["host0:4000", "host1:4000"]}, "task": {"type": "worker", "index": 0}}'
        raise UserError(f"TF_CONFIG: {error}; it is to be like {example}") from None
    return workers, index


def _workers(workers: list[str], index: int) -> Cluster:
    """Wait for the other workers, and return the cluster of all of them."""
    import tensorflow as tf

    others = [worker for i, worker in enumerate(workers) if i != index]
    if others:
        print(f"worker {index} of {len(workers)}: waits for {', '.join(others)}; Ctrl-C ends it", flush=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would wait for TensorFlow's C++ code
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UserError(f"TF_CONFIG: the workers {', '.join(workers)} do not come together ({error})") from None
    finally:
        signal.signal(signal.SIGINT, handler)
    return Cluster(strategy, index, len(workers))
