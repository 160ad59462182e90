"""Arithmetic over the replicas, the devices that share a batch. One device alone is a single replica."""

from typing import Any

import tensorflow as tf


def n_replicas() -> int:
    """Return how many devices share a batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def total(value) -> Any:
    """Return the sum of a value over all replicas. Each of them has to ask."""
    if n_replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def own_share(values, batch) -> Any:
    """Return this replica's `batch` rows of values that were drawn for the images of all replicas.

    All replicas draw the same values, so an image gets the same ones on any number of devices.
    """
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return values[replica * batch : (replica + 1) * batch]


def weight_of_mean(amount) -> Any:
    """Return the factor that turns a mean over `amount` values of each replica into a mean over the values of all of them.

    The mean over the replicas is taken later. The factor is 1 where all replicas have the same amount.
    """
    if n_replicas() == 1:
        return 1.0
    return n_replicas() * tf.maximum(amount, 1.0) / tf.maximum(total(amount), 1.0)
