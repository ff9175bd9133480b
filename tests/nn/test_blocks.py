import pytest
import torch
import torch.nn.functional as F
from fastvision.nn import FeaturePyramidNetwork, FrozenBatchNorm2d


@torch.no_grad()
def test_pyramid_is_the_papers():
    torch.manual_seed(0)
    pyramid = FeaturePyramidNetwork([3, 5, 7], 4)
    maps = [torch.randn(2, c, h, w) for c, h, w in ((3, 13, 10), (5, 7, 5), (7, 4, 3))]
    lateral = [inner(m) for inner, m in zip(pyramid.inner_blocks, maps)]
    top = [lateral[2]]
    for side in (lateral[1], lateral[0]):
        top.insert(0, side + F.interpolate(top[0], size=side.shape[2:], mode="nearest"))
    levels = [layer(t) for layer, t in zip(pyramid.layer_blocks, top)]
    out = pyramid(maps)
    assert [tuple(level.shape[2:]) for level in out] == [(13, 10), (7, 5), (4, 3), (2, 2)]
    for mine, expected in zip(out, [*levels, levels[-1][:, :, ::2, ::2]]):
        torch.testing.assert_close(mine, expected)


def test_every_map_of_a_pyramid_gets_a_gradient():
    pyramid = FeaturePyramidNetwork([3, 3], 4)
    maps = [torch.randn(1, 3, n, n, requires_grad=True) for n in (8, 4)]
    sum(level.square().sum() for level in pyramid(maps)[:1]).backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)


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
