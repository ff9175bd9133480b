import math

import torch
from fastvision import ops
from fastvision.ops.multiscale_roi_align import multiscale_roi_align_reference
from hypothesis import given
from hypothesis import strategies as st
from roi_problems import feature_map, problems, regions
from support import assert_close


@st.composite
def pyramids(draw):
    return {**draw(problems()), "levels": draw(st.integers(1, 4)), "given": draw(st.booleans())}


@given(p=pyramids())
def test_pyramid_matches_reference(backend, p):
    g = backend.vary(p["seed"])
    sizes = [(math.ceil(p["map"][0] * 2 / 2**k), math.ceil(p["map"][1] * 2 / 2**k)) for k in range(p["levels"])]
    maps = [feature_map(g, p, h, w) for h, w in sizes]
    rois, scales = regions(g, p, p["dtype"]), [0.25 / 2**k for k in range(p["levels"])]
    rois[:, 1:] *= torch.tensor([1.0, 6.0, 30.0])[torch.randint(3, (p["rois"], 1), generator=g)].to(rois.dtype)
    levels = torch.randint(p["levels"], (p["rois"],), generator=g) if p["given"] else None
    options = {"canonical_scale": 56.0, "canonical_level": 3, "sampling_ratio": p["ratio"], "aligned": p["aligned"]}
    ours = [m.to(backend.device).requires_grad_() for m in maps]
    theirs = [m.double().requires_grad_() for m in maps]
    placed = None if levels is None else levels.to(backend.device)
    out = ops.multiscale_roi_align(ours, rois.to(backend.device), p["size"], scales, levels=placed, **options)
    expected = multiscale_roi_align_reference(theirs, rois.double(), p["size"], scales, levels=levels, **options)
    assert_close(out, expected)
    if expected.requires_grad:
        grad = torch.randn(out.shape, generator=g, dtype=torch.float64).to(p["dtype"])
        wanted = torch.autograd.grad(expected, theirs, grad.double(), allow_unused=True)
        for gradient, want in zip(torch.autograd.grad(out, ours, grad.to(backend.device)), wanted):
            assert_close(gradient, torch.zeros_like(gradient) if want is None else want, scale=4.0)
