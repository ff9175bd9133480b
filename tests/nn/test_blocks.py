import pytest
import torch
import torch.nn.functional as F
from fastvision.nn import FeaturePyramidNetwork, FrozenBatchNorm2d
from support import FORMATS

SIZES = {"halves": [(12, 8), (6, 4), (3, 2)], "other ratios": [(13, 10), (7, 5), (4, 3)]}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("with_gradients", [False, True])
def test_pyramid_is_the_papers(sizes, format, with_gradients):
    torch.manual_seed(0)
    pyramid = FeaturePyramidNetwork([3, 5, 7], 4)
    maps = [torch.randn(2, c, *size).to(memory_format=format) for c, size in zip((3, 5, 7), sizes)]
    inputs = [t.requires_grad_(with_gradients) for t in (*maps, *pyramid.parameters())]
    lateral = [inner(m) for inner, m in zip(pyramid.inner_blocks, maps)]
    top = [lateral[2]]
    for side in (lateral[1], lateral[0]):
        top.insert(0, side + F.interpolate(top[0], size=side.shape[2:], mode="nearest"))
    levels = [layer(t) for layer, t in zip(pyramid.layer_blocks, top)]
    out = pyramid(maps)
    assert [tuple(level.shape[2:]) for level in out] == [*sizes, tuple((n + 1) // 2 for n in sizes[-1])]
    for mine, expected in zip(out, [*levels, levels[-1][:, :, ::2, ::2]]):
        torch.testing.assert_close(mine, expected)
        assert mine.stride() == expected.stride() or mine is out[-1]
    if with_gradients:
        mine, expected = (
            torch.autograd.grad(sum(level.square().sum() for level in found), inputs) for found in (out[:3], levels)
        )
        torch.testing.assert_close(mine, expected)
        assert all(gradient.abs().sum() > 0 for gradient in mine)


def trained_norm(channels):
    norm = torch.nn.BatchNorm2d(channels)
    torch.manual_seed(0)
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        torch.nn.init.uniform_(value, 0.5, 2)
    return norm.eval()


@torch.no_grad()
def test_frozen_normalisation_is_that_of_inference():
    norm, frozen = trained_norm(5), FrozenBatchNorm2d(5)
    frozen.load_state_dict(norm.state_dict(), strict=True)
    x = torch.randn(2, 5, 4, 3)
    for mode in (True, False):
        torch.testing.assert_close(frozen.train(mode)(x), norm(x))
    last = x.to(memory_format=torch.channels_last)
    assert frozen(last).is_contiguous(memory_format=torch.channels_last)
    assert frozen(x.double()).dtype == torch.float64
    assert repr(frozen) == "FrozenBatchNorm2d(5, eps=1e-05)"


def test_frozen_normalisation_does_not_learn():
    frozen = FrozenBatchNorm2d(3)
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    frozen(x).sum().backward()
    assert x.grad.isfinite().all()
    assert not list(frozen.parameters())
    assert set(before) == {"weight", "bias", "running_mean", "running_var"}
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    with pytest.raises(RuntimeError, match="running_var"):
        frozen.load_state_dict({key: value for key, value in before.items() if key != "running_var"})
