"""The original system's arithmetic, written out on `tf.nn` from its documented facts, to compare ours against.

Facts: convolutions have biases (also before a norm, where they cancel), instance norm has epsilon 1e-6, stride-1
convolutions are 'valid' after reflection padding, strided and transposed ones are TensorFlow's 'same'. `weights` holds
numpy arrays by the names that `Model` gives its variables.
"""

import numpy as np
import tensorflow as tf


class Reference:
    def __init__(self, weights: dict[str, np.ndarray], network: str, bias_seed: int = 0):
        self.weights, self.network = weights, network
        self.count: dict[str, int] = {}
        self.rng = np.random.default_rng(bias_seed)

    def _next(self, kind: str, weight: str) -> np.ndarray | None:
        return self.weights.get(f"{self.network}/{kind}_{self.count.get(kind, 0)}/{weight}")

    def _bias(self, kind: str, filters: int) -> np.ndarray:
        bias = self._next(kind, "bias")  # one that a norm cancels may be anything
        return self.rng.normal(size=filters).astype("f") if bias is None else bias

    def conv(self, x, stride: int = 1):
        kernel = self._next("Conv2D", "kernel")
        bias = self._bias("Conv2D", kernel.shape[-1])
        self.count["Conv2D"] = self.count.get("Conv2D", 0) + 1
        if stride == 1:
            p = kernel.shape[0] // 2
            x = tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]], "REFLECT")
        return tf.nn.conv2d(x, kernel, stride, "VALID" if stride == 1 else "SAME") + bias

    def transposed(self, x):
        kernel = self._next("Conv2DTranspose", "kernel")
        bias = self._bias("Conv2DTranspose", kernel.shape[2])
        self.count["Conv2DTranspose"] = self.count.get("Conv2DTranspose", 0) + 1
        b, h, w, _ = x.shape
        y = tf.nn.conv2d_transpose(x, kernel, [b, 2 * h, 2 * w, kernel.shape[2]], 2, "SAME")
        return y + bias

    def norm(self, x):
        gamma, beta = self._next("Norm", "gamma"), self._next("Norm", "beta")
        self.count["Norm"] = self.count.get("Norm", 0) + 1
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-6)

    def encoder(self, x, bottleneck_norm: bool):
        for stride in (1, 2, 2, 2, 2):
            x = tf.nn.relu(self.norm(self.conv(x, stride)))
        x = self.conv(x)
        return tf.nn.relu(self.norm(x)) if bottleneck_norm else x

    def generator(self, z, n_residual_blocks: int):
        h = tf.nn.relu(self.norm(self.conv(z)))
        for _ in range(n_residual_blocks):
            r = tf.nn.relu(self.norm(self.conv(h)))
            h = h + self.norm(self.conv(r))
        for _ in range(4):
            h = tf.nn.relu(self.norm(self.transposed(h)))
        return tf.tanh(self.conv(h))
