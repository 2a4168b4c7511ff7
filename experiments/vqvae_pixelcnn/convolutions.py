"""Convolutions as matrix products with windows of their input.

XLA for CPUs compiles a convolution inside of a loop, or one with a batch of kernels (``vmap`` over parameters), to code
many times slower than outside; a product stays fast in both. So steps of several models fit into one compiled loop.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def windows(
    x: jax.Array,
    size: tuple[int, int],
    before: tuple[int, int] = (0, 0),
    after: tuple[int, int] = (0, 0),
    stride: int = 1,
) -> jax.Array:
    """The features of each window of rows and columns of [b, h, w, c], one row after another: [b, h', w', r * s * c].

    Args:
      x: features on a grid.
      size: rows r and columns s of a window.
      before: rows of zeros above, and columns of them left of the grid.
      after: those below, and to the right.
      stride: from one window to the next, in both directions.
    """
    padded = jnp.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
    height, width = (1 + (padded.shape[axis + 1] - size[axis]) // stride for axis in (0, 1))
    parts = [
        padded[:, row : row + stride * (height - 1) + 1 : stride, column : column + stride * (width - 1) + 1 : stride]
        for row in range(size[0])
        for column in range(size[1])
    ]
    return jnp.concatenate(parts, -1)


class Conv(nn.Module):
    """``nn.Conv`` with padding SAME, its kernel as a matrix; the grid's sides are multiples of the stride."""

    features: int
    size: int
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        low = (self.size - self.stride) // 2
        high = self.size - self.stride - low
        around = windows(x, (self.size, self.size), (low, low), (high, high), self.stride)
        return nn.Dense(self.features, use_bias=self.use_bias)(around)


class UpConv(nn.Module):
    """``nn.ConvTranspose`` of size 4 and stride 2, which doubles the grid: a 2 x 2 convolution for each of 4 places."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        around = windows(x, (2, 2), (1, 1), (1, 1))  # one more than places in both directions
        shifted = [around[:, row : row + height, column : column + width] for row in (0, 1) for column in (0, 1)]
        initial = nn.initializers.lecun_normal(batch_axis=(0,))
        kernels = self.param("kernels", initial, (4, 4 * channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        places = jnp.einsum("pbhwc,pcf->pbhwf", jnp.stack(shifted), kernels) + bias.reshape(1, 1, 1, 1, -1)
        by_side = places.reshape(2, 2, batch, height, width, self.features).transpose(2, 3, 0, 4, 1, 5)
        return by_side.reshape(batch, 2 * height, 2 * width, self.features)
