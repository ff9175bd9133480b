import numpy as np
import pytest
import torch
from fastvision.viz import PALETTE, draw_detections
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

numbers = st.one_of(st.floats(-20, 80), st.floats(width=32), st.sampled_from([0.0, -1e30, 1e30]))


@st.composite
def problems(draw):
    n = draw(st.integers(0, 4))
    size = draw(st.sampled_from([(1, 1), (1, 300), (300, 1), (7, 5), (64, 48)]))
    return {
        "image": Image.new("RGB", size, "gray"),
        "boxes": torch.tensor(draw(st.lists(st.tuples(*[numbers] * 4), min_size=n, max_size=n))).reshape(n, 4),
        "labels": draw(st.one_of(st.none(), st.just(torch.arange(n) - 1))),
        "scores": draw(st.one_of(st.none(), st.just(torch.rand(n)))),
        "masks": draw(st.one_of(st.none(), st.just(torch.rand(n, size[1], size[0]) > 0.6))),
        "names": draw(
            st.one_of(st.none(), st.lists(st.text(), max_size=4), st.dictionaries(st.integers(-1, 4), st.text()))
        ),
        "scale": draw(st.sampled_from([1, 1, 2, 5])),
    }


@given(problem=problems())
def test_draws_anything(problem):
    before = problem["image"].tobytes()
    picture = draw_detections(**problem)
    assert picture.mode == "RGB"
    assert picture.size == tuple(side * problem["scale"] for side in problem["image"].size)
    assert problem["image"].tobytes() == before


@pytest.mark.parametrize("name", ["数字の検出", "كشف الأرقام", "x" * 400, "a\nb\0\t", "\ud800", "", "🦉", "e\u0301"])
def test_names_in_any_script(name):
    picture = draw_detections(
        Image.new("RGB", (90, 60)), torch.tensor([[5.0, 30, 60, 50]]), labels=torch.tensor([1]), names=[name]
    )
    assert np.asarray(picture).any()


def test_box_mask_and_caption_are_where_they_belong():
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 50:70, 40:60] = True
    picture = draw_detections(
        torch.zeros(3, 100, 100),
        torch.tensor([[30.0, 40, 80, 90]]),
        labels=torch.tensor([2]),
        masks=mask,
        scores=torch.ones(1),
    )
    pixels, color = np.asarray(picture), PALETTE[2]
    for x, y in ((30, 40), (79, 40), (30, 89), (79, 89), (55, 40), (30, 60)):  # pixels 30 to 79 are in the box
        assert tuple(pixels[y, x]) == color
    for x, y in ((29, 60), (80, 60), (55, 90), (35, 60), (65, 80)):
        assert not pixels[y, x].any()
    assert tuple(pixels[60, 50]) == tuple(round(0.45 * c) for c in color)
    assert tuple(pixels[50, 50]) == color  # the outline
    assert (pixels[25:40, 30:60] == color).all(2).sum() > 100  # the caption, above the box


def test_the_first_row_lies_on_top():
    boxes = torch.tensor([[10.0, 10, 50, 50], [10, 10, 50, 50]])
    picture = draw_detections(Image.new("RGB", (60, 60)), boxes, labels=torch.tensor([1, 2]))
    assert picture.getpixel((30, 10)) == PALETTE[1]


def test_boxes_that_cannot_be_seen_leave_no_trace():
    nan, inf = float("nan"), float("inf")
    hidden = [[nan, 0, 5, 5], [0, 0, inf, 5], [70, 0, 80, 10], [-9, 0, -1, 10], [30, 30, 20, 40], [0, 70, 10, 80]]
    picture = draw_detections(
        Image.new("RGB", (60, 60)), torch.tensor(hidden), labels=torch.arange(6), scores=torch.rand(6)
    )
    assert not np.asarray(picture).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"boxes": torch.zeros(4)},
        {"labels": torch.zeros(2, dtype=torch.int64)},
        {"scores": torch.zeros(2)},
        {"masks": torch.zeros(1, 3, 4, dtype=torch.bool)},
        {"scale": 0},
        {"image": torch.zeros(1, 4, 4)},
    ],
)
def test_wrong_shapes(wrong):
    with pytest.raises(ValueError, match=f"draw_detections: {next(iter(wrong))}"):
        draw_detections(**({"image": torch.zeros(3, 4, 4), "boxes": torch.zeros(1, 4)} | wrong))
