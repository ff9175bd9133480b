"""What tests of RoI align share: problems drawn at random, and their regions and maps."""

import torch
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, random_boxes, seeds


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.integers(1, 3)),
        "channels": draw(st.sampled_from([0, 1, 2, 3, 7, 8, 16, 33, 65])),
        "map": draw(st.tuples(st.integers(1, 20), st.integers(1, 20))),
        "rois": draw(st.sampled_from([0, 1, 3, 7, 65])),
        "size": draw(st.tuples(st.sampled_from([1, 2, 3, 7, 9]), st.sampled_from([1, 2, 3, 7, 9]))),
        "scale": draw(st.sampled_from([0.25, 0.5, 1.0, 3.0])),
        "ratio": draw(st.sampled_from([-1, 0, 1, 2, 3])),
        "aligned": draw(st.booleans()),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "format": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "nan": draw(st.booleans()),
    }


def regions(g, p, dtype):
    boxes = random_boxes(g, p["rois"], size=30.0) - 5
    if p["nan"] and p["rois"]:
        boxes[0, 1] = torch.nan
        boxes[-1, 2] = torch.inf
    images = torch.randint(p["batch"], (p["rois"], 1), generator=g)
    return torch.cat([images, boxes], 1).to(torch.float64 if dtype == torch.float64 else torch.float32)


def feature_map(g, p, height, width):
    x = torch.randn(p["batch"], p["channels"], height, width, generator=g, dtype=torch.float64).to(p["dtype"])
    return x.to(memory_format=p["format"])


def arguments(p):
    return p["size"], p["scale"], p["ratio"], p["aligned"]
