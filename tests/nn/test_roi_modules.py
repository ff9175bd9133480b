import pytest
import torch
from fastvision import nn, ops

BOXES = [torch.tensor([[0.0, 0.0, 9.0, 7.0], [20.0, 8.0, 60.0, 50.0]]), torch.tensor([[4.0, 4.0, 12.0, 30.0]])]


def test_modules_are_their_functions():
    x = torch.rand(2, 3, 16, 16)
    align = nn.RoIAlign((3, 2), 0.25, 2, aligned=True)
    assert torch.equal(align(x, BOXES), ops.roi_align(x, BOXES, (3, 2), 0.25, 2, True))
    assert repr(align) == "RoIAlign(output_size=(3, 2), spatial_scale=0.25, sampling_ratio=2, aligned=True)"
    pool = nn.RoIPool(2, 0.25)
    assert torch.equal(pool(x, BOXES), ops.roi_pool(x, BOXES, 2, 0.25))
    assert repr(pool) == "RoIPool(output_size=2, spatial_scale=0.25)"
    assert not list(align.parameters())


@pytest.mark.parametrize("padded", [(64, 64), (63, 50)])
def test_pyramid_pooling_takes_the_named_maps(padded):
    maps = {"a": torch.rand(2, 3, 16, 16), "other": torch.rand(2, 3, 3, 3), "b": torch.rand(2, 3, 8, 8)}
    pool = nn.MultiScaleRoIAlign(["a", "b"], 2, 2, canonical_scale=32, canonical_level=2)
    rule = {"canonical_scale": 32.0, "canonical_level": 2}
    expected = ops.multiscale_roi_align([maps["a"], maps["b"]], BOXES, 2, [1 / 4, 1 / 8], **rule)
    assert torch.equal(pool(maps, BOXES, [padded, (40, 64)]), expected)
    assert "featmap_names=['a', 'b']" in repr(pool)


def test_pyramid_pooling_needs_a_map_and_an_image():
    pool = nn.MultiScaleRoIAlign(["a"], 2, 2)
    for maps, shapes in (({"b": torch.rand(1, 1, 4, 4)}, [(8, 8)]), ({"a": torch.rand(1, 1, 4, 4)}, [])):
        with pytest.raises(ValueError, match="expected at least one feature map and one image"):
            pool(maps, [torch.rand(1, 4)], shapes)
