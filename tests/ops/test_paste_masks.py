import numpy as np
import pytest
import torch
from fastvision import ops
from fastvision.ops.paste_masks import paste_masks_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, LAYOUTS, lay_out, random_boxes, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "masks": draw(st.sampled_from([0, 1, 2, 5])),
        "size": draw(st.tuples(st.sampled_from([1, 2, 7, 28]), st.sampled_from([1, 3, 14]))),
        "image": draw(st.tuples(st.sampled_from([0, 1, 7, 20, 33]), st.sampled_from([0, 1, 8, 16, 31, 40]))),
        "padding": draw(st.sampled_from([0, 1, 2])),
        "threshold": draw(st.sampled_from([0.5, 0.1, 0.0])),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "layout": draw(st.sampled_from(LAYOUTS)),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    masks = torch.rand(p["masks"], *p["size"], generator=g).to(p["dtype"])
    # Quarters: the corners of the grown boxes are cut to integers alike in every precision.
    boxes = ((random_boxes(g, p["masks"], size=24.0) * 4).round() / 4 - 2) if p["masks"] else torch.zeros(0, 4)
    boxes = boxes.to(torch.float64 if p["dtype"] == torch.float64 else torch.float32)
    return lay_out(masks.to(backend.device), p["layout"]), boxes.to(backend.device)


@given(p=problems())
def test_matches_reference(backend, p):
    masks, boxes = inputs(backend, p)
    pasted = ops.paste_masks_in_image(masks, boxes, p["image"], p["threshold"], padding=p["padding"])
    assert pasted.dtype == torch.bool
    wide = torch.float64 if p["dtype"] == torch.float64 else torch.float32
    probability = paste_masks_reference(masks.to(wide).cpu(), boxes.cpu(), p["image"], padding=p["padding"])
    undecided = (probability - p["threshold"]).abs() < 1e-5
    assert ((pasted.cpu() == (probability > p["threshold"])) | undecided).all()


@given(p=problems())
def test_forms_agree(backend, p):
    masks, boxes = inputs(backend, p)
    args = boxes, p["image"], p["threshold"]
    plain = ops.paste_masks_in_image(masks, *args, padding=p["padding"])
    assert torch.equal(ops.paste_masks_in_image(masks, *args, padding=p["padding"], out="uint8"), plain.to(torch.uint8))
    assert torch.equal(ops.paste_masks_in_image(masks[:, None], *args, padding=p["padding"]), plain)
    packed = ops.paste_masks_in_image(masks, *args, padding=p["padding"], out="packed")
    expected = np.packbits(plain.cpu().numpy(), axis=2, bitorder="little")
    assert packed.cpu().numpy().tolist() == expected.tolist()
    assert ops.paste_masks_in_image(masks, *args, padding=p["padding"], out="rle") == ops.rle_encode(plain)


def test_boxes_that_are_not_finite_or_huge(backend):
    masks = torch.ones(5, 1, 4, 4, device=backend.device)
    rows = [[torch.nan, 0, 4, 4], [0, 0, torch.inf, 4], [-1e30, 0, 1e30, 4], [0, 0, 0, 0], [-1e6, -1e6, 1e6, 1e6]]
    pasted = ops.paste_masks_in_image(masks, torch.tensor(rows, device=backend.device), (6, 8))
    assert not pasted[:3].any()
    assert pasted[3].sum() <= 4
    assert pasted[4].all()


def test_errors(backend):
    masks, boxes = torch.rand(2, 1, 4, 4, device=backend.device), torch.rand(2, 4, device=backend.device)
    with pytest.raises(ValueError, match="out: expected one of bool"):
        ops.paste_masks_in_image(masks, boxes, (4, 4), out="png")
    with pytest.raises(ValueError, match="boxes: expected shape"):
        ops.paste_masks_in_image(masks, boxes[:1], (4, 4))
    with pytest.raises(ValueError, match="image_shape"):
        ops.paste_masks_in_image(masks, boxes, (-1, 4))
    with pytest.raises(TypeError, match="boxes: expected dtype float32"):
        ops.paste_masks_in_image(masks, boxes.double(), (4, 4))
