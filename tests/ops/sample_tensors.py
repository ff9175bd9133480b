"""Small tensors for the calls of native_calls.py and public_calls.py."""

import torch


def generator():
    return torch.Generator().manual_seed(0)


def boxes(*shape, dtype=torch.float32):
    corner = torch.rand(*shape, 2, generator=generator()) * 8
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=generator()) * 8], -1).to(dtype)


def rois(n, images, dtype=torch.float32):
    return torch.cat([torch.arange(n)[:, None] % images, boxes(n)], 1).to(dtype)


def features(*shape, dtype=torch.float32, channels_last=False):
    x = torch.rand(shape, generator=generator()).to(dtype)
    return x.to(memory_format=torch.channels_last) if channels_last else x


def rotated(*shape, dtype=torch.float32):
    return torch.cat([boxes(*shape), torch.rand(*shape, 1, generator=generator()) * 360], -1).to(dtype)


def masks(*shape):
    return torch.rand(shape, generator=generator()) > 0.5
