import numpy as np
import pytest
import torch
from fastvision import _lib, ops
from fastvision.ops.mask_iou import mask_iou_reference
from hypothesis import given
from hypothesis import strategies as st
from support import LAYOUTS, lay_out, random_boxes, seeds

FORMS = ("dense", "packed", "bytes", "full bytes")


def random_masks(g, *shape):
    """Some empty, some full, some equal to another, the rest of any density."""
    density = torch.rand(*shape[:-2], 1, 1, generator=g) * 1.6 - 0.3
    masks = torch.rand(shape, generator=g) < density
    return torch.where(torch.rand(*shape[:-2], 1, 1, generator=g) < 0.2, masks.roll(1, -3), masks)


def in_form(masks, form):
    if form == "packed":
        packed = np.packbits(masks.cpu().numpy(), axis=-1, bitorder="little")
        return torch.from_numpy(packed).to(masks.device)
    return masks if form == "dense" else masks.to(torch.uint8) * (255 if form == "full bytes" else 1)


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([(), (), (2,), (0,), (2, 3)])),
        "counts": draw(st.tuples(st.sampled_from([0, 1, 2, 17, 33]), st.sampled_from([0, 1, 3, 16, 35]))),
        "size": draw(st.sampled_from([(1, 1), (5, 7), (9, 8), (28, 28), (3, 65), (0, 4), (4, 0), (40, 64)])),
        "forms": draw(st.sampled_from([("dense", "dense"), ("packed", "packed"), ("dense", "packed")])),
        "crowd": draw(st.sampled_from([None, torch.bool, torch.int64])),
        "layouts": draw(st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))),
    }


def inputs(backend, p):
    g = backend.vary(p["seed"])
    a, b = (random_masks(g, *p["batch"], n, *p["size"]) for n in p["counts"])
    crowd = None
    if p["crowd"]:
        crowd = (torch.rand(b.shape[:-2], generator=g) < 0.5).to(p["crowd"]).to(backend.device)
    return a.to(backend.device), b.to(backend.device), crowd


def spread(masks, layout):
    """Other memory, with set pixels wherever the masks are not."""
    if layout == "strided":
        wide = torch.ones(*masks.shape[:-1], 2 * masks.shape[-1], dtype=masks.dtype, device=masks.device)
        wide[..., ::2] = masks
        return wide[..., ::2]
    if layout == "shifted":
        flat = torch.cat([torch.ones(1, dtype=masks.dtype, device=masks.device), masks.flatten()])
        return flat[1:].view(masks.shape)
    return lay_out(masks, layout)


@given(p=problems())
def test_matches_reference(backend, p):
    a, b, crowd = inputs(backend, p)
    want = mask_iou_reference(a.cpu(), b.cpu(), crowd=None if crowd is None else crowd.cpu())
    given_masks = [in_form(m, form) for m, form in zip((a, b), p["forms"])]
    got = ops.mask_iou(*(spread(m, layout) for m, layout in zip(given_masks, p["layouts"])), crowd=crowd)
    assert got.dtype == torch.float32
    assert torch.equal(got.cpu(), want)


@given(p=problems())
def test_properties(backend, p):
    """Symmetric, 1 with itself unless empty, in [0, 1], the same from bytes, on every backend and thread count."""
    a, b, _ = inputs(backend, p)
    overlaps = ops.mask_iou(a, b)
    assert torch.equal(overlaps, ops.mask_iou(b, a).transpose(-1, -2))
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    own = ops.mask_iou(a, a).diagonal(dim1=-2, dim2=-1)
    assert torch.equal(own, a.any(-1).any(-1).float())
    for form in FORMS[1:]:
        assert torch.equal(ops.mask_iou(in_form(a, form), in_form(b, form)), overlaps)
    threads = torch.get_num_threads()
    _lib.use_namespace("fastvision")
    try:
        torch.set_num_threads(1)
        assert torch.equal(ops.mask_iou(a.cpu(), b.cpu()), overlaps.cpu())
    finally:
        torch.set_num_threads(threads)
        _lib.use_namespace(backend.namespace)


@pytest.mark.parametrize("size", [(400, 401), (256, 512)])
def test_masks_longer_than_a_strip(backend, size):
    g = backend.vary(9)
    a, b = random_masks(g, 5, *size), random_masks(g, 4, *size)
    assert torch.equal(ops.mask_iou(a.to(backend.device), b.to(backend.device)).cpu(), mask_iou_reference(a, b))


def test_bool_with_any_byte_that_is_not_zero(backend):
    values = torch.tensor([[[0, 1, 2, 128, 255, 0, 0, 3]]], dtype=torch.uint8, device=backend.device)
    odd = values.view(torch.bool)
    assert torch.equal(ops.mask_iou(odd, values != 0), torch.ones(1, 1, device=backend.device))


@given(seed=seeds)
def test_pasted_masks(backend, seed):
    """What paste_masks_in_image packs is what mask_iou reads, and what rle_iou says of its run lengths."""
    g = backend.vary(seed)
    masks, boxes = torch.rand(6, 1, 7, 7, generator=g), random_boxes(g, 6, size=24.0, dtype=torch.float32)
    args = masks.to(backend.device), boxes.to(backend.device), (20, 27)
    dense, packed = (ops.paste_masks_in_image(*args, out=out) for out in ("bool", "packed"))
    overlaps = ops.mask_iou(packed, packed)
    assert torch.equal(overlaps, ops.mask_iou(dense, dense))
    assert torch.equal(overlaps, ops.mask_iou(dense, packed))
    runs = ops.paste_masks_in_image(*args, out="rle")
    assert torch.equal(overlaps.cpu(), ops.rle_iou(runs, runs).float())


def test_works_under_vmap(backend):
    g = backend.vary(2)
    a, b = random_masks(g, 3, 4, 6, 9).to(backend.device), random_masks(g, 5, 6, 9).to(backend.device)
    together = torch.func.vmap(ops.mask_iou, in_dims=(0, None))(a, b)
    assert torch.equal(together, torch.stack([ops.mask_iou(masks, b) for masks in a]))


def test_errors(backend):
    masks = torch.ones(2, 4, 9, dtype=torch.bool, device=backend.device)
    packed = torch.ones(3, 4, 2, dtype=torch.uint8, device=backend.device)
    assert ops.mask_iou(masks, packed).shape == (2, 3)
    for other in (masks[:, :3], masks[..., :8], masks[None], packed[..., :1]):
        with pytest.raises(ValueError, match="masks2: expected the size"):
            ops.mask_iou(masks, other)
    with pytest.raises(TypeError, match="masks1: expected dtype bool, or uint8 for packed bits, got float32"):
        ops.mask_iou(masks.float(), masks)
    with pytest.raises(ValueError, match="masks1: expected shape"):
        ops.mask_iou(masks[0], masks[0])
    with pytest.raises(ValueError, match="crowd: expected one per mask of masks2"):
        ops.mask_iou(masks, packed, crowd=torch.ones(2, dtype=torch.bool, device=backend.device))
    with pytest.raises(TypeError, match="crowd: expected dtype"):
        ops.mask_iou(masks, packed, crowd=torch.ones(3, device=backend.device))
    huge = torch.ones(1, 1, 1, dtype=torch.bool, device=backend.device).expand(1, 2**16, 2**16)
    with pytest.raises(ValueError, match=r"fewer than 2\*\*32 pixels"):
        ops.mask_iou(huge, huge)
