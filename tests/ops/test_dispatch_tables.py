"""Problems at the borders of docs/kernels/dispatch.md, and what algorithm="auto" takes."""

import pytest
import torch
from fastvision.ops._dispatch import own_is_faster
from support import FORMATS

pytestmark = pytest.mark.usefixtures("vectors_of_16_bits")


DENSE_CHOICES = [  # which, channels of the weight, size, padding and dilation, dtype, taken in NCHW, and channels_last
    ("gather", (256, 2048), (33, 33), (12, 12), torch.float32, True, True),
    ("gather", (256, 1024), (33, 33), (12, 12), torch.float32, True, False),
    ("gather", (256, 2048), (37, 37), (12, 12), torch.float32, True, False),
    ("gather", (256, 2048), (33, 33), (7, 7), torch.float32, False, True),
    ("gather", (256, 2048), (33, 33), (7, 12), torch.float32, False, True),
    ("gather", (256, 1024), (28, 28), (12, 12), torch.float32, False, False),
    ("gather", (127, 2048), (33, 33), (12, 12), torch.float32, False, False),
    ("gather", (256, 63), (33, 33), (12, 12), torch.float32, False, False),
    ("scatter", (256, 2048), (33, 33), (18, 18), torch.float32, False, True),
    ("product", (256, 2048), (33, 33), (18, 18), torch.float32, True, True),
    ("product", (256, 512), (33, 33), (17, 17), torch.float32, True, True),
    ("product", (256, 512), (33, 33), (16, 16), torch.float32, False, False),
    ("product", (256, 512), (65, 65), (29, 29), torch.float32, True, True),
    ("product", (256, 512), (33, 65), (18, 18), torch.float32, True, True),
    ("product", (256, 512), (65, 33), (18, 18), torch.float32, False, False),
    ("product", (256, 512), (14, 14), (8, 8), torch.float32, False, True),
    ("product", (256, 31), (33, 33), (18, 18), torch.float32, False, False),
    ("product", (512, 1024), (33, 33), (8, 8), torch.float32, True, True),
    ("product", (512, 1024), (33, 33), (11, 11), torch.float32, False, True),
    ("product", (512, 1024), (67, 67), (8, 8), torch.float32, True, True),
    ("product", (64, 64), (28, 28), (1, 1), torch.float32, True, True),
    ("product", (64, 63), (28, 28), (1, 1), torch.float32, False, False),
    ("product", (64, 64), (5, 5), (1, 1), torch.float32, False, False),
    ("product", (256, 256), (14, 14), (1, 1), torch.float32, True, True),
    ("product", (256, 256), (50, 50), (1, 1), torch.bfloat16, False, False),
    ("product", (256, 512), (65, 65), (28, 28), torch.float32, False, False),
    ("product", (256, 512), (33, 33), (18, 17), torch.float32, False, False),
    ("gather", (256, 2048), (33, 33), (11, 12), torch.float32, False, False),
    ("gather", (256, 2048), (20, 4096), (12, 12), torch.float32, True, False),
    ("gather", (256, 2048), (20, 4097), (12, 12), torch.float32, False, False),
    ("product", (256, 2048), (33, 33), (18, 18), torch.bfloat16, False, False),
    ("gather", (64, 64), (56, 56), (1, 1), torch.float64, True, True),
    ("gather", (63, 64), (56, 56), (1, 1), torch.float64, False, False),
    ("gather", (256, 256), (28, 28), (1, 1), torch.float64, False, False),
    ("gather", (256, 256), (33, 33), (6, 6), torch.float64, True, True),
    ("gather", (256, 256), (33, 33), (5, 5), torch.float64, False, False),
    ("gather", (64, 64), (56, 56), (0, 1), torch.float64, False, False),
    ("gather", (64, 64), (1, 8000), (1, 1), torch.float64, False, False),
    ("scatter", (16, 16), (112, 112), (1, 1), torch.float64, True, True),
    ("scatter", (15, 16), (112, 112), (1, 1), torch.float64, False, False),
    ("gather", (256, 256), (33, 33), (12, 12), torch.float64, True, True),
    ("scatter", (256, 256), (28, 28), (1, 1), torch.float64, True, True),
    ("scatter", (16, 16), (20, 20), (1, 1), torch.float64, False, False),
    ("product", (256, 256), (33, 33), (12, 12), torch.float64, True, True),
    ("product", (256, 256), (56, 56), (1, 1), torch.float64, False, False),
]


@pytest.mark.parametrize(("which", "channels", "size", "geometry", "dtype", "planes", "last"), DENSE_CHOICES)
def test_dense_choices(which, channels, size, geometry, dtype, planes, last):
    x = torch.empty(1, channels[1], *size, dtype=dtype)
    weight = torch.empty(*channels, 3, 3, dtype=dtype)
    problem = (weight, [1, 1, *(n for n in geometry for _ in (0, 1))], 1)
    assert own_is_faster(which, x, *problem) == planes
    assert own_is_faster(which, x.to(memory_format=torch.channels_last), *problem) == last


def test_dense_choices_look_at_the_format_of_weights():
    x, weight = torch.empty(1, 2048, 33, 33), torch.empty(256, 2048, 3, 3)
    x, last = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    geometry = [1, 1, 12, 12, 12, 12]
    assert own_is_faster("gather", x, weight, geometry, 1)
    assert not own_is_faster("gather", x, last, geometry, 1)
    assert own_is_faster("product", x, last, geometry, 1)


SIDE_BY_SIDE_CHOICES = [  # which, channels of the weight, groups, kernel, size, dtype, taken, also in channels_last
    ("scatter", (64, 256), 1, (2, 2), (16, 32), torch.float32, True, False),
    ("scatter", (64, 257), 1, (2, 2), (16, 32), torch.float32, False, False),
    ("scatter", (64, 256), 1, (2, 2), (7, 73), torch.float32, False, False),
    ("scatter", (64, 256), 1, (3, 3), (7, 73), torch.float32, True, False),
    ("scatter", (64, 64), 1, (2, 2), (15, 32), torch.float64, True, False),
    ("scatter", (64, 65), 1, (2, 2), (15, 32), torch.float64, False, False),
    ("scatter", (64, 64), 1, (3, 3), (15, 32), torch.float64, False, False),
    ("scatter", (64, 128), 1, (2, 2), (128, 256), torch.float64, True, True),
    ("scatter", (64, 129), 1, (2, 2), (128, 256), torch.float64, False, False),
    ("gather", (64, 128), 1, (2, 2), (128, 256), torch.float64, True, True),
    ("gather", (64, 64), 2, (2, 2), (128, 256), torch.float64, True, False),
    ("scatter", (64, 128), 1, (2, 2), (16, 32), torch.bfloat16, False, False),
    ("gather", (64, 32), 1, (2, 2), (128, 256), torch.float32, True, False),
    ("product", (64, 32), 1, (2, 2), (128, 256), torch.float64, True, True),
    ("product", (64, 65), 1, (2, 2), (128, 256), torch.float64, False, False),
    ("product", (32, 128), 1, (2, 2), (128, 256), torch.float32, True, True),
    ("product", (64, 129), 1, (2, 2), (128, 256), torch.float32, False, True),
    ("product", (64, 256), 1, (2, 2), (64, 64), torch.float32, False, True),
    ("product", (64, 257), 1, (2, 2), (64, 64), torch.float32, False, False),
    ("product", (64, 256), 1, (2, 2), (63, 65), torch.float32, False, False),
    ("product", (64, 31), 1, (2, 2), (128, 256), torch.float32, False, False),
    ("product", (31, 64), 1, (2, 2), (128, 256), torch.float32, False, False),
    ("product", (64, 32), 1, (2, 2), (127, 256), torch.float64, False, False),
    ("product", (64, 32), 4, (2, 2), (128, 256), torch.float32, False, False),
    ("product", (128, 32), 2, (2, 2), (128, 256), torch.float32, True, False),
    ("gather", (64, 32), 1, (2, 1), (128, 256), torch.float32, False, False),
    ("gather", (64, 32), 1, (3, 3), (128, 256), torch.float32, False, False),
    ("gather", (64, 32), 1, (2, 2), (128, 256), torch.bfloat16, False, False),
]


@pytest.mark.parametrize("choice", SIDE_BY_SIDE_CHOICES)
def test_auto_of_windows_side_by_side(choice):
    which, channels, groups, kernel, size, dtype, taken, also_channels_last = choice
    x = torch.empty(1, 128, *size, dtype=dtype)
    last = x.to(memory_format=torch.channels_last)
    weight = torch.empty(*channels, *kernel, dtype=dtype)
    assert own_is_faster(which, x, weight, (*kernel, 0, 0, 1, 1), groups) == taken
    assert own_is_faster(which, last, weight, (*kernel, 0, 0, 1, 1), groups) == also_channels_last
    assert not own_is_faster(which, x, weight, (*kernel, 0, 0, 2, 2), groups)
    assert which == "scatter" or not own_is_faster(which, x[:, :127], weight, (*kernel, 0, 0, 1, 1), groups)


def test_auto_of_small_maps_with_many_channels():
    weight = torch.empty(64, 128, 2, 2)
    for size, taken in ((127, False), (128, True)):
        assert own_is_faster("gather", torch.empty(1, 512, size, 129), weight, (2, 2, 0, 0, 1, 1), 1) == taken


@pytest.mark.parametrize(("images", "taken"), [(15, False), (16, True)])
def test_auto_of_many_small_maps(images, taken):
    """The boxes of a mask head: 14 x 14 pixels each."""
    x, weight = torch.empty(images, 256, 14, 14), torch.empty(256, 256, 2, 2)
    assert own_is_faster("scatter", x, weight, (2, 2, 0, 0, 1, 1), 1) == taken


DEPTHWISE_CHOICES = [  # which, format, kernel, size, stride, dilation, dtype, taken
    ("gather", torch.contiguous_format, 3, 14, 1, 1, torch.float32, True),
    ("scatter", torch.contiguous_format, 3, 14, 1, 1, torch.bfloat16, True),
    ("gather", torch.contiguous_format, 3, 13, 1, 1, torch.float32, False),
    ("gather", torch.channels_last, 3, 14, 1, 1, torch.float32, False),
    ("product", torch.contiguous_format, 3, 14, 1, 1, torch.float32, False),
    ("gather", torch.contiguous_format, 5, 28, 1, 1, torch.float32, True),
    ("gather", torch.contiguous_format, 5, 27, 1, 1, torch.float32, False),
    ("gather", torch.contiguous_format, 7, 56, 1, 1, torch.float32, False),
    ("product", torch.contiguous_format, 5, 14, 1, 1, torch.float32, True),
    ("product", torch.channels_last, 7, 14, 2, 1, torch.float32, True),
    ("product", torch.contiguous_format, 3, 14, 2, 1, torch.float32, False),
    ("scatter", torch.channels_last, 3, 14, 2, 1, torch.bfloat16, True),
    ("scatter", torch.channels_last, 3, 14, 2, 1, torch.float32, False),
    ("gather", torch.contiguous_format, 3, 14, 1, 2, torch.float32, True),
    ("gather", torch.channels_last, 3, 14, 1, 2, torch.float32, False),
    ("gather", torch.contiguous_format, 3, 14, 2, 2, torch.float32, False),
    ("scatter", torch.channels_last, 8, 14, 4, 1, torch.float32, True),
    ("scatter", torch.channels_last, 4, 14, 2, 1, torch.float32, False),
    ("scatter", torch.channels_last, 9, 14, 4, 1, torch.float32, False),
    ("scatter", torch.contiguous_format, 9, 14, 4, 1, torch.float32, True),
    ("gather", torch.channels_last, 8, 14, 4, 1, torch.float32, False),
    ("gather", torch.channels_last, 3, 14, 1, 1, torch.float64, True),
    ("product", torch.contiguous_format, 3, 14, 2, 1, torch.float64, True),
    ("scatter", torch.channels_last, 3, 14, 1, 1, torch.float16, True),
    ("product", torch.contiguous_format, 3, 14, 2, 1, torch.float16, True),
    ("gather", torch.channels_last, 3, 14, 1, 1, torch.float16, False),
]


@pytest.mark.parametrize("choice", DEPTHWISE_CHOICES)
def test_auto_of_one_channel_per_group(choice):
    which, format, kernel, size, stride, dilation, dtype, taken = choice
    x = torch.empty(1, 8, size, size + 1, dtype=dtype).to(memory_format=format)
    weight = torch.empty(8, 1, kernel, kernel, dtype=dtype)
    padding = dilation * (kernel // 2)
    assert own_is_faster(which, x, weight, (stride, stride, padding, padding, dilation, dilation), 8) == taken


HALF_CHOICES = [  # which, channels of the weight, groups, kernel, size, taken
    ("product", (8, 8), 1, (3, 3), (5, 5), True),
    ("product", (8, 4), 2, (1, 1), (5, 5), True),
    ("scatter", (8, 4), 2, (3, 3), (5, 5), True),
    ("gather", (8, 4), 2, (2, 2), (16, 32), False),
    ("scatter", (8, 8), 1, (4, 4), (8, 16), True),
    ("scatter", (8, 8), 1, (4, 4), (7, 18), False),
    ("gather", (8, 8), 1, (2, 2), (16, 32), True),
    ("gather", (8, 8), 1, (2, 2), (7, 73), False),
    ("gather", (8, 8), 1, (4, 4), (16, 32), False),
    ("gather", (8, 3), 1, (2, 2), (16, 32), False),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("choice", HALF_CHOICES)
def test_auto_in_float16(choice, format):
    which, channels, groups, kernel, size, taken = choice
    x = torch.empty(2, 8, *size, dtype=torch.float16).to(memory_format=format)
    weight = torch.empty(*channels, *kernel, dtype=torch.float16)
    assert own_is_faster(which, x, weight, (*kernel, 0, 0, 1, 1), groups) == taken
    always = which == "product" or (which == "scatter" and groups > 1)
    assert own_is_faster(which, x, weight, (1, 1, 0, 0, 1, 1), groups) == always
