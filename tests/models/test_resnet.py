import pytest
import torch
from fastvision.models import classification
from fastvision.models.classification.resnet import BasicBlock, Bottleneck, ResNet, ResNetBody
from fastvision.nn import FrozenBatchNorm2d

# Numbers of parameters as the papers' tables and torchvision's documentation have them.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name):
    with torch.device("meta"):
        model = getattr(classification, name)()
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1000)


@pytest.mark.parametrize(("block", "factor"), [(BasicBlock, 1), (Bottleneck, 4)])
def test_maps_have_the_strides_of_the_stages(block, factor):
    body = ResNetBody(block, (1, 2, 1, 1), width=8).eval()
    maps = body(torch.rand(2, 3, 64, 96))
    assert body.out_channels == [8 * factor * 2**k for k in range(4)]
    assert [tuple(m.shape) for m in maps] == [(2, 8 * factor * 2**k, 64 // (4 << k), 96 // (4 << k)) for k in range(4)]


def test_a_block_starts_near_the_identity():
    """With its last normalisation at zero a block passes its input on (section 3.1)."""
    block = Bottleneck(16, 4, 1, torch.nn.BatchNorm2d).eval()
    torch.nn.init.zeros_(block.bn3.weight)
    x = torch.rand(1, 16, 5, 5)
    assert torch.equal(block(x), x)


def test_groups_and_normalisation():
    model = ResNet(Bottleneck, (1, 1), 3, width=8, groups=4, group_width=16, norm=FrozenBatchNorm2d)
    convolution = model.get_submodule("layer1.0.conv2")
    assert convolution.groups == 4
    assert convolution.weight.shape == (8, 2, 3, 3)
    assert isinstance(model.bn1, FrozenBatchNorm2d)


def test_learns():
    torch.manual_seed(0)
    model = ResNet(BasicBlock, (1, 1), 2, width=8)
    images, labels = torch.rand(16, 3, 16, 16), torch.arange(16) % 2
    images[labels == 1, 0] += 0.3
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_state_loads_strictly():
    model, other = (ResNet(BasicBlock, (1, 1), n, width=8) for n in (3, 4))
    assert model.load_state_dict(model.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match=r"size mismatch for fc\.weight"):
        model.load_state_dict(other.state_dict())
