"""The region ops and box functions against torchvision's."""

import pytest
import torch
from fastvision import ops

BOXES = torch.tensor([[0.0, 3.2, 1.7, 30.5, 25.1], [1, -4, -3, 12, 9], [1, 5, 5, 5.2, 5.4], [0, 20, 9, 70, 60]])


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_position_sensitive_ops(torchvision, format, scale):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 5 * 6, 17, 23, generator=g).to(memory_format=format)
    rois = torch.cat([BOXES, torch.cat([torch.ones(40, 1), torch.rand(40, 2, generator=g) * 20], 1).repeat(1, 2)[:, :5]])
    rois[4:, 3:] += rois[4:, 1:3]
    pairs = [
        (lambda x: ops.ps_roi_align(x, rois, (2, 3), scale, 2), lambda x: torchvision.ops.ps_roi_align(x, rois, (2, 3), scale, 2)),
        (lambda x: ops.ps_roi_align(x, rois, (2, 3), scale), lambda x: torchvision.ops.ps_roi_align(x, rois, (2, 3), scale)),
        (
            lambda x: ops.ps_roi_pool(x, rois, (2, 3), scale, legacy_border=True),
            lambda x: torchvision.ops.ps_roi_pool(x, rois, (2, 3), scale),
        ),
    ]
    for ours, theirs in pairs:
        results = []
        for f in (ours, theirs):
            a = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = f(a)
            grad = torch.rand(out.shape, generator=torch.Generator().manual_seed(1))
            results.append((out, torch.autograd.grad(out, a, grad)[0]))
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(pairs[2][0](x), pairs[2][1](x))
