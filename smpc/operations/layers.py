"""Layers of a network: what torch's modules call. Their own weights and buffers may be shared, or
public.

Range: of sums of products, what a product has in `pointwise`; each sum is rounded once.
"""

import math
from fractions import Fraction

import torch

from smpc.operations import functions, number, pointwise, reductions, shapes
from smpc.operations.registry import operand, operation

# Below whatever is pooled, in place of minus infinity around it.
LOWEST = -(10**9)
MOST_VARIANCE = 10**4  # of a channel's values, that its normalisation is right for


@operation()
def linear(x, weight, bias=None):
    """x weight^T + bias: (..., in) and (out, in) to (..., out); see `reductions.matmul`."""
    weight = operand(x, weight)
    product = reductions.matmul(x, shapes.transpose(weight, 0, 1) if weight.dim == 2 else weight)
    return product if bias is None else number.add(product, operand(x, bias))


@operation()
def addmm(bias, x, weight, *, beta=1, alpha=1):
    """beta bias + alpha x weight."""
    product = pointwise.mul(reductions.matmul(operand(bias, x), weight), alpha)
    return number.add(pointwise.mul(bias, beta), product)


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _refuse(layer, **wanted):
    """Raise NotImplementedError for the first argument that is wanted and not there."""
    for name, is_wanted in wanted.items():
        if is_wanted:
            raise NotImplementedError(f"semi2k has no {layer} with {name}: see docs/operations.md")


def _windows(layer, x, size, strides, padding=(0, 0), around=0):
    """(..., H, W), padded, to its windows (..., rows, columns, *size)."""
    if x.dim not in (3, 4):
        raise ValueError(f"{layer} of a tensor of shape {x.shape}: it takes (B, C, H, W)")
    if max(padding):
        x = shapes.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=around)
    if min(n - k for n, k in zip(x.shape[-2:], size, strict=True)) < 0:
        raise ValueError(f"{layer} of size {size} in images of {x.shape[-2:]}")
    return number.unfold(x, size, strides)


@operation()
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """The cross-correlation of images (B, C, H, W) with kernels (out, C, h, w), as a matrix product
    of the windows with the kernels. An image is sent once, 8 bytes an element, however many windows
    an element is in.

    Args:
        padding: a number, two, "valid" or "same".
    """
    weight, size, strides = operand(x, weight), tuple(weight.shape[2:]), _pair(stride)
    _refuse("conv2d", dilation=_pair(dilation) != (1, 1), groups=groups != 1)
    if weight.dim != 4 or x.shape[-3:-2] != weight.shape[1:2]:
        raise ValueError(f"conv2d of images {x.shape} with kernels {weight.shape}")
    if padding == "same":
        if strides != (1, 1):
            raise ValueError("conv2d with padding='same' has stride 1")
        (above, below), (left, right) = (((n - 1) // 2, n // 2) for n in size)
        x, padding = shapes.pad(x, (left, right, above, below)), 0
    padding = (0, 0) if padding == "valid" else _pair(padding)
    images = x if x.dim == 4 else shapes.unsqueeze(x, 0)
    windows = _windows("conv2d", images, size, strides, padding)  # (B, C, rows, columns, h, w)
    n, _, rows, columns, *_ = windows.shape
    lines = number.reshape(shapes.permute(windows, 0, 2, 3, 1, 4, 5), (n * rows * columns, -1))
    kernels = number.reshape(weight, (weight.shape[0], -1))
    products = number.matmul(lines, number.transposed(kernels))  # (B rows columns, out)
    if bias is not None:
        products = number.add(products, operand(x, bias))
    out = number.reshape(products, (n, rows, columns, weight.shape[0]))
    out = number.permute(out, (0, 3, 1, 2))
    return out if x.dim == 4 else shapes.squeeze(out, 0)


@operation()
def avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    divisor_override=None,
):  # fmt: skip
    """The mean of each window of images (B, C, H, W); nothing is sent."""
    padding = _pair(padding)
    uneven = max(padding) and not count_include_pad
    _refuse("avg_pool2d", ceil_mode=ceil_mode, count_include_pad=uneven)
    size = _pair(kernel_size)
    strides = size if stride in (None, ()) else _pair(stride)
    windows = _windows("avg_pool2d", x, size, strides, padding)
    divisor = divisor_override or math.prod(size)
    return number.scale(reductions.sum(windows, (-2, -1)), Fraction(1, divisor))


@operation()
def adaptive_avg_pool2d(x, output_size):
    """The mean of equal parts of images; their sides are multiples of the result's."""
    shape = x.shape[-2:]
    parts = [want or n for n, want in zip(shape, _pair(output_size), strict=True)]
    if any(n % k for n, k in zip(shape, parts, strict=True)):
        raise NotImplementedError(f"semi2k has no {parts} equal parts of images {shape}")
    return avg_pool2d(x, tuple(n // k for n, k in zip(shape, parts, strict=True)))


@operation()
def max_pool2d(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
):
    """The largest of each window of images (B, C, H, W); the first of equal ones has the gradient.

    Of n elements in a window, n - 1 comparisons, in as many levels as n can be halved.
    """
    dilated = _pair(dilation) != (1, 1)
    _refuse("max_pool2d", dilation=dilated, ceil_mode=ceil_mode, return_indices=return_indices)
    size, padding = _pair(kernel_size), _pair(padding)
    if any(2 * p > k for p, k in zip(padding, size, strict=True)):
        raise ValueError(f"padding {padding} is more than half of windows of {size}")
    strides = size if stride in (None, ()) else _pair(stride)
    windows = _windows("max_pool2d", x, size, strides, padding, LOWEST)
    return reductions.max(shapes.flatten(windows, -2), -1).values


@operation()
def batch_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1,
    eps=1e-5,
):  # fmt: skip
    """Each channel of (B, C, ...) with mean 0 and variance 1, times its weight plus its bias.

    In training the mean and the variance are the batch's, a root of one number a channel, and the
    running ones, which must be shared, take part of them; else they are the running ones.

    Range: variances up to 10^4, `MOST_VARIANCE`. Error: a unit, and the weight times one unit and
    one more divided by the deviation.
    """
    axes = [axis for axis in range(x.dim) if axis != 1]
    shape = [1, -1, *[1] * (x.dim - 2)]

    def channels(values):
        return number.reshape(operand(x, values), shape)

    if not training:
        mean, var = channels(running_mean), running_var
    else:
        mean = reductions.mean(x, axes, keepdim=True)
        off = number.subtract(x, mean)
        with x.finer(MOST_VARIANCE):
            var = reductions.mean(pointwise.square(off), axes, keepdim=True)
        if running_mean is not None:
            n = math.prod(x.shape) // x.shape[1]
            _follow(running_mean, mean, momentum)
            _follow(running_var, number.scale(var, Fraction(n, max(n - 1, 1))), momentum)
    if isinstance(var, torch.Tensor):
        root = torch.rsqrt(var.detach().double() + eps).numpy()
        inverse = channels(x.public(root, finer=10**number.GUARD_DIGITS))
    else:
        with x.finer(), torch.no_grad() if var.step is None else torch.enable_grad():
            inverse = channels(functions.rsqrt(pointwise.add(var, eps)))
    y = number.multiply(number.subtract(x, mean), inverse)
    y = y if weight is None else number.multiply(y, channels(weight))
    return y if bias is None else number.add(y, channels(bias))


def _follow(running, of_batch, momentum):
    """A running statistic takes a part of a batch's."""
    with torch.no_grad():
        of_batch = number.reshape(of_batch.detached(), running.shape)
        kept = pointwise.mul(running, 1 - momentum)
        running.assign(number.add(kept, pointwise.mul(of_batch, momentum)))


@operation()
def dropout(x, p=0.5, training=True, inplace=False):
    """In training, zeros in place of elements with probability p, the others divided by 1 - p.

    Which they are comes from torch's generator and is public: it depends on nothing that is secret,
    and tells as much of it as the network's shape does. Nothing is sent but the mask, as a constant
    of the program, which is another in every step.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout with probability {p}")
    if not training or p == 0:
        return x
    kept = torch.rand(x.shape) >= p if p < 1 else torch.zeros(x.shape)
    scaled = number.multiply(x, x.public(kept.bool().numpy()))
    return scaled if p == 1 else pointwise.div(scaled, 1 - p)
