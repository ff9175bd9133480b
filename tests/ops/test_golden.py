"""Worked examples from lectures and papers, whose numbers can be checked by hand."""

import torch
from fastvision import ops


def test_roi_pool_of_a_4_by_4_map(backend):
    x = torch.arange(16.0, device=backend.device).view(1, 1, 4, 4)
    rois = torch.tensor([[0.0, 1, 1, 2, 2], [0, 2, 0, 3, 3], [0, 0, 0, 3, 3]], device=backend.device)
    expected = [[5, 6, 9, 10], [6, 7, 14, 15], [5, 7, 13, 15]]
    assert ops.roi_pool(x, rois, 2).flatten(1).tolist() == expected


def matrix_of_convolution(kernel, size):
    """Each row computes one output of a stride-1 convolution without padding from the flattened input."""
    k, out = len(kernel), size - len(kernel) + 1
    rows = torch.zeros(out * out, size * size)
    for y in range(out):
        for x in range(out):
            for i in range(k):
                for j in range(k):
                    rows[y * out + x, (y + i) * size + x + j] = kernel[i][j]
    return rows


def test_transposed_convolution_is_the_transposed_matrix(backend):
    """The 4 x 16 matrix of Dumoulin and Visin (A guide to convolution arithmetic, 2016), with weights 1 to 9."""
    kernel = [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]
    matrix = matrix_of_convolution(kernel, 4)
    assert matrix[0].tolist() == [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]
    assert matrix[3].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]
    weight = torch.tensor(kernel, device=backend.device).view(1, 1, 3, 3)
    large, small = torch.arange(16.0), torch.tensor([1.0, -2, 3, 5])
    options = {"algorithm": "fastvision"}
    down = ops.conv2d(large.view(1, 1, 4, 4).to(backend.device), weight, **options)
    up = ops.conv_transpose2d(small.view(1, 1, 2, 2).to(backend.device), weight, **options)
    assert down.flatten().tolist() == (matrix @ large).tolist()
    assert up.flatten().tolist() == (matrix.T @ small).tolist()
    assert up.view(4, 4).tolist() == [[1, 0, -1, -6], [7, 8, 15, 3], [19, 29, 36, 12], [21, 59, 67, 45]]


def test_transposed_convolution_of_stride_2_in_one_dimension(backend):
    """Each input writes a copy of the kernel, two places on: 1, 2, 3 and 10, 20, 30 overlap in one place."""
    x = torch.tensor([1.0, 10], device=backend.device).view(1, 1, 1, 2)
    weight = torch.tensor([1.0, 2, 3], device=backend.device).view(1, 1, 1, 3)
    out = ops.conv_transpose2d(x, weight, stride=(1, 2), algorithm="fastvision")
    assert out.flatten().tolist() == [1, 2, 13, 20, 30]


def test_run_lengths_of_a_known_mask():
    """Column by column 0 0 1 1 1 0: two, three, one; each count is a character from 48 on."""
    mask = torch.tensor([[[0, 1, 1], [0, 1, 0]]], dtype=torch.bool)
    (runs,) = ops.rle_encode(mask)
    assert runs == {"size": [2, 3], "counts": bytes([48 + 2, 48 + 3, 48 + 1])}
    assert ops.rle_area([runs]).tolist() == [3]
    assert ops.rle_to_boxes([runs]).tolist() == [[1, 0, 3, 2]]


def test_overlap_of_shifted_squares(backend):
    """Two squares of side 2, one place apart: 2 of 6; the hull of 6 adds nothing, two corners apart it is 9."""
    a = torch.tensor([[0.0, 0, 2, 2]], device=backend.device)
    b = torch.tensor([[1.0, 0, 3, 2], [1, 1, 3, 3], [0, 0, 2, 2]], device=backend.device)
    torch.testing.assert_close(ops.box_iou(a, b).cpu(), torch.tensor([[1 / 3, 1 / 7, 1.0]]))
    torch.testing.assert_close(ops.generalized_box_iou(a, b).cpu(), torch.tensor([[1 / 3, 1 / 7 - 2 / 9, 1.0]]))
