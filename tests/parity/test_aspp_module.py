"""The module ASPP against torchvision's, with its state."""

import pytest
import torch
from fastvision import nn


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_module_is_torchvisions(torchvision, format, training):
    deeplab = torchvision.models.segmentation.deeplabv3
    torch.manual_seed(0)
    ours, theirs = nn.ASPP(5, (2, 4, 9), 6).train(training), deeplab.ASPP(5, [2, 4, 9], 6).train(training)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.weight)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.project[3].p = theirs.project[3].p = 0.0
    x = torch.randn(2, 5, 7, 8).to(memory_format=format)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)
