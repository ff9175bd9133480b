"""Dense convolutions with stride 1 that the own kernels have fewer products for than torch's: see _dispatch.py."""

import torch

from ._dispatch_problem import Problem


def is_faster_dense(p: Problem) -> bool:
    if p.groups != 1 or max(p.geometry[:2]) > 1 or max(p.kernel) == 1:
        return False
    same = all(2 * n == d * (k - 1) for k, n, d in zip(p.kernel, p.geometry[2:4], p.geometry[4:]))
    if p.wide and same and p.input[3] <= 4096 and _is_faster_by_tap(p):
        return True
    return p.product > 0 and _is_winograd(p)


def _is_faster_by_tap(p: Problem) -> bool:
    """With results as large as the input: where torch makes more products, or is slow."""
    (first, second), taps, (batch, _, *sides), geometry = p.weight[:2], p.kernel, p.input, p.geometry
    pairs = first * second
    met = everywhere = batch  # pairs of pixels and taps: those that meet, and all
    for size, count, padding, dilation in zip(sides, taps, geometry[2:4], geometry[4:]):
        met *= sum(max(size - abs(tap * dilation - padding), 0) for tap in range(count))
        everywhere *= count * size
    far = everywhere >= 1.5 * met
    if p.dtype == torch.float64:  # torch makes all products
        if p.which == "scatter":
            return min(first, second) >= 16 and everywhere >= 6500 and everywhere * pairs >= 2**24
        enough = everywhere >= 20_000 or (everywhere >= 6500 and everywhere >= 1.25 * met)
        return min(first, second) >= 64 and (enough if p.which == "gather" else everywhere >= 6500 and far)
    if taps != (3, 3):
        return False
    if p.which == "product":
        # oneDNN has no kernel where the window is higher than the map or its padding wide; weights that no cache holds.
        slow = far and (2 * geometry[4] >= sides[0] or geometry[3] > 28)
        many = p.channels_last and pairs >= 2**19 and min(geometry[4:]) >= 8 and everywhere <= 40_000
        return many or (slow and second >= 32 and (p.channels_last or sides[0] * sides[1] >= 400))
    if p.channels_last:
        return far and pairs >= 2**19 and met <= 6000 and p.has_plain_weight
    # oneDNN has no kernel for rows in NCHW that begin with so much padding.
    slow = p.which == "gather" and geometry[3] >= 8 and first >= 128 and second >= 64 and sides[1] > 28
    own = min(_Winograd(p).products, (met + 900) * pairs)
    return slow and everywhere * pairs >= 1.2 * own


class _Winograd:
    """What a 3 x 3 convolution costs by tiles of the map (csrc/kernels/winograd_shape.h)."""

    products: int  # of the tiles, and for the transforms of these and of the weights
    saves: bool  # whether tiles surely have fewer than the taps inside of the map; else the own kernel is another one
    met: int  # pairs of a pixel and a tap inside of the map

    def __init__(self, p: Problem) -> None:
        side = 2 if p.wide else 4
        first, second = p.weight[:2]
        pairs, tiles, most, self.met = first * second, p.input[0], p.input[0], p.input[0]
        for size, padding, dilation in zip(p.input[2:], p.geometry[2:4], p.geometry[4:]):
            border = 2 * max(dilation - padding, 0)
            inner = max(size - border, 0)
            tiles *= _count_tiles(inner, side, dilation)
            most *= _count_tiles(size + border, side, dilation)  # of the larger map of a transposed convolution
            self.met *= 3 * inner - 2 * min(padding, inner)
        parts = (side + 2) ** 2
        # In a cache, by panels, or in none.
        by_weight = 8 if pairs <= 2**14 else 16 if tiles <= 96 else 24 if side == 2 else 60
        self.products = parts * (tiles * (pairs + 18 * (first + second)) + by_weight * pairs)
        self.saves = min(first, second) >= 8 and self.met >= parts * most


def _count_tiles(size: int, side: int, dilation: int) -> int:
    return size // (side * dilation) * dilation + min(size % (side * dilation), dilation)


def _is_winograd(p: Problem) -> bool:
    """3 x 3: the own kernel has fewer products, if its transforms pay."""
    if p.kernel != (3, 3):
        return False
    pairs, own = p.weight[0] * p.weight[1], _Winograd(p)
    undilated = max(p.geometry[4:]) == 1
    if p.which == "product":
        if not p.wide or min(p.weight[:2]) < 64 or not own.saves:
            return False
        margin = 1.05 if p.channels_last or undilated else 1.2
    else:
        margin = 1.05 if p.channels_last else 1.2 if undilated else 1.6
    if p.slow and not own.saves:  # else the products below say so
        return False
    return pairs <= 2**20 and p.product * own.met * pairs >= margin * own.products > 0
