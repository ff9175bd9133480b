import pytest
import torch
from fastvision import ops
from fastvision.ops.grid_anchors import grid_anchors_reference
from hypothesis import given
from hypothesis import strategies as st
from support import seeds


@st.composite
def problems(draw):
    levels = draw(st.integers(0, 5))
    return {
        "seed": draw(seeds),
        "grid_sizes": [draw(st.tuples(st.integers(0, 9), st.integers(0, 9))) for _ in range(levels)],
        "strides": [draw(st.sampled_from([1, 4, (16, 14), 63])) for _ in range(levels)],
        "sizes": [
            draw(st.lists(st.sampled_from([1.0, 7.5, 32.0, 500.0]), min_size=1, max_size=3)) for _ in range(levels)
        ],
        "aspect_ratios": [
            draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 0.1]), min_size=1, max_size=3)) for _ in range(levels)
        ],
        "offset": draw(st.sampled_from([0.0, 0.5])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
    }


@given(p=problems())
def test_matches_reference(backend, p):
    backend.vary(p.pop("seed"))
    args = p.pop("grid_sizes"), p.pop("strides"), p.pop("sizes"), p.pop("aspect_ratios")
    anchors = ops.grid_anchors(*args, **p, device=backend.device)
    assert torch.equal(anchors.cpu(), grid_anchors_reference(*args, **p))


def test_count_of_a_known_map(backend):
    """A 1000 x 600 image at stride 16 has 60 x 40 cells (Faster R-CNN, about 2400)."""
    anchors = ops.grid_anchors([(40, 60)], [16], [[128, 256, 512]], [[0.5, 1, 2]], device=backend.device)
    assert anchors.shape == (2400 * 9, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [0]}, "strides"),
        ({"sizes": [[]]}, "sizes"),
        ({"sizes": [[-1.0]]}, "sizes"),
        ({"aspect_ratios": [[float("nan")]]}, "aspect_ratios"),
        ({"grid_sizes": [(-1, 2)]}, "grid_sizes"),
        ({"grid_sizes": [(2**40, 2**40)]}, "grid_sizes"),
        ({"strides": [1, 2]}, "strides"),
    ],
)
def test_errors_name_the_argument(backend, change, message):
    good = {"grid_sizes": [(2, 2)], "strides": [4], "sizes": [[8.0]], "aspect_ratios": [[1.0]]}
    with pytest.raises(ValueError, match=f"grid_anchors: {message}: expected"):
        ops.grid_anchors(**{**good, **change}, device=backend.device)
