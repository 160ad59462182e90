"""Training on several GPUs of one machine, or on several machines: which tf.distribute strategy, and who does what.

One process a machine. TF_CONFIG, as TensorFlow's MultiWorkerMirroredStrategy wants it, says which machines there are; without
it, the GPUs of this machine train together, or the one device that there is. Every replica sees its share of the knob
batch_size, so that the same knobs give the same training on any number of devices, to rounding. Worker 0 is the chief: it
alone writes checkpoints, summaries and pictures.
"""

import json
import os
import re
from collections.abc import Iterator
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
        if config.batch_size % n:
            raise UserError(f"knob batch_size: {config.batch_size} images do not go evenly to {n} devices; take a multiple")
        if n > 1 and config.jit_compile:
            raise UserError(f"knob jit_compile: of one device only, and here are {n}")
        if n > 1 and (config.spectral_norm or config.weight_clipping):
            raise UserError(f"knobs spectral_norm and weight_clipping: change D on one device only, and here are {n}")
        if n > 1 and config.mixed_precision == "float16":
            raise UserError("knob mixed_precision: float16 scales the loss of each device apart; on several, take bfloat16")

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any of the workers; all have to ask at the same step."""
        if self.workers == 1:
            return flag
        import tensorflow as tf

        mine = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(float(flag)))
        return float(self.strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None)) > 0

    @contextmanager
    def lost_workers(self, advice: str) -> Iterator[None]:
        """Within this context, what TensorFlow throws when another worker is gone becomes a UserError."""
        import tensorflow as tf

        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError) as error:
            if self.workers == 1:
                raise
            reason = re.sub(r"{{.*?}}\s*", "", error.message.splitlines()[0])  # names of nodes
            raise UserError(f"another worker is gone ({reason}); {advice}") from None


def cluster() -> Cluster:
    """By TF_CONFIG, or by the GPUs that there are. To be called before TensorFlow's first tensor. Raises UserError."""
    import tensorflow as tf

    if "TF_CONFIG" not in os.environ:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return Cluster(tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy())
    try:
        setting = json.loads(os.environ["TF_CONFIG"])
        workers, task = setting["cluster"]["worker"], setting["task"]
        index = int(task["index"])
        if task["type"] != "worker" or set(setting["cluster"]) != {"worker"} or not 0 <= index < len(workers):
            raise ValueError("all tasks are workers here, the first of them the chief")
    except (ValueError, KeyError, TypeError) as error:
        example = '{"cluster": {"worker": ["host0:4000", "host1:4000"]}, "task": {"type": "worker", "index": 0}}'
        raise UserError(f"TF_CONFIG: {error}; it is to be like {example}") from None
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UserError(f"TF_CONFIG: the workers {', '.join(workers)} do not come together ({error})") from None
    return Cluster(strategy, index, len(workers))
