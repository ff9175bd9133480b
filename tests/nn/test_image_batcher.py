import pytest
import torch
from fastvision.nn import ImageBatcher
from hypothesis import given
from hypothesis import strategies as st

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 2.0)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    shortest=st.integers(1, 60),
    divisor=st.sampled_from([1, 8, 32]),
)
def test_sizes(height, width, shortest, divisor):
    batcher = ImageBatcher(shortest, 2 * shortest, MEAN, STD, divisor)
    batch = batcher([torch.rand(3, height, width), torch.rand(3, 4, 4)])
    (h, w), other = batch.sizes
    scale = min(shortest / min(height, width), 2 * shortest / max(height, width))
    assert 0 <= height * scale - h < 1 or h == 1
    assert 0 <= width * scale - w < 1 or w == 1
    assert max(h, w) <= 2 * shortest
    assert other == (shortest, shortest)
    assert batch.originals == [(height, width), (4, 4)]
    rows, columns = batch.pixels.shape[2:]
    assert rows % divisor == columns % divisor == 0
    assert 0 <= rows - max(h, shortest) < divisor
    assert 0 <= columns - max(w, shortest) < divisor
    assert not batch.pixels[0, :, h:].any()
    assert not batch.pixels[0, :, :, w:].any()
    torch.testing.assert_close(batch.scales()[0], torch.tensor([w / width, h / height] * 2))
    assert batch.limits()[0].tolist() == [w, h, w, h]


def test_normalises():
    image = torch.rand(3, 8, 12)
    batch = ImageBatcher(8, 99, MEAN, STD, divisor=4)([image])
    expected = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.equal(batch.pixels[0], expected)
    assert batch.scales().tolist() == [[1, 1, 1, 1]]


def test_a_resized_constant_stays_constant():
    batch = ImageBatcher(20, 40, MEAN, STD, divisor=1)([torch.full((3, 7, 9), 0.5)])
    expected = torch.tensor([0.0, 1.0, 0.25])[None, :, None, None].expand(batch.pixels.shape)
    torch.testing.assert_close(batch.pixels, expected)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "images: expected at least one image, got 0"),
        ([torch.rand(3, 4, 4), torch.rand(1, 4, 4)], ValueError, r"expected shape \(3, H, W\) in place 1, got \(1, 4"),
        ([torch.rand(3, 0, 4)], ValueError, r"in place 0, got \(3, 0, 4\)"),
        (
            [torch.zeros(3, 4, 4, dtype=torch.uint8)],
            TypeError,
            r"floating point in \[0, 1\] in place 0, got torch.uint8",
        ),
    ],
)
def test_wrong_images(images, error, message):
    with pytest.raises(error, match=message):
        ImageBatcher()(images)
