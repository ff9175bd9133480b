import pytest
import torch
from fastvision import ops
from fastvision.ops.gram_matrix import gram_matrix_reference
from hypothesis import given
from hypothesis import strategies as st
from support import ALL_DTYPES, FORMATS, LAYOUTS, assert_close, lay_out, seeds, tf32

channels = st.sampled_from([0, 1, 2, 3, 5, 8, 16, 17, 32, 33, 63, 64, 65, 70])


@st.composite
def problems(draw):
    return {
        "seed": draw(seeds),
        "batch": draw(st.sampled_from([0, 1, 2])),
        "channels": (draw(channels), draw(st.one_of(st.none(), channels))),
        # 2053 and 4099 pixels make two parts; most sizes are no multiple of what is loaded at a time
        "size": draw(st.sampled_from([(0, 3), (1, 1), (4, 8), (5, 7), (1, 129), (16, 16), (1, 2053), (1, 4099)])),
        "dtype": draw(st.sampled_from(ALL_DTYPES)),
        "formats": draw(st.tuples(st.sampled_from(FORMATS), st.sampled_from(FORMATS))),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "normalize": draw(st.booleans()),
    }


def inputs_of(backend, p):
    g = backend.vary(p["seed"])
    for count, format in zip(p["channels"], p["formats"]):
        if count is None:
            yield None
            continue
        x = torch.randn(p["batch"], count, *p["size"], generator=g).to(p["dtype"]).to(memory_format=format)
        yield lay_out(x, p["layout"]).to(backend.device)


def double(x):
    return None if x is None else x.double()


def tolerance(x):
    """16-bit factors are multiplied exactly, and the sums have no cancellation that a float32 sum would not have."""
    return (
        {"atol": 1e-9, "rtol": 1e-9}
        if x.dtype == torch.float64
        else {"atol": 1e-5 * (x[:1, :1].numel() or 1), "rtol": 1e-5}
    )


@given(p=problems())
def test_matches_reference(backend, p):
    x, y = inputs_of(backend, p)
    out = ops.gram_matrix(x, y, normalize=p["normalize"])
    expected = gram_matrix_reference(x.double(), double(y), normalize=p["normalize"])
    assert out.dtype == (torch.float64 if p["dtype"] == torch.float64 else torch.float32)
    allowed = tolerance(x)
    if p["normalize"]:
        allowed["atol"] /= max(x[:1].numel(), 1)
    torch.testing.assert_close(out.double(), expected, **allowed)
    if y is None:
        assert torch.equal(out, out.mT)
        assert (out.diagonal(dim1=1, dim2=2) >= 0).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [(300, None), (530, None), (270, 65), (65, 270)])
def test_several_blocks_of_channels(backend, channels, format):
    x, y = (
        None if c is None else torch.randint(-4, 5, (2, c, 7, 10)).float().to(memory_format=format) for c in channels
    )
    out = ops.gram_matrix(x.to(backend.device), None if y is None else y.to(backend.device))
    assert torch.equal(out.cpu(), gram_matrix_reference(x, y))  # small integers: every sum is exact


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 33, 512, 512), (2, 16, 520, 512)])
def test_gradient_of_large_maps(backend, shape, format):
    x = torch.randint(-3, 4, shape).float().to(memory_format=format)
    slopes = torch.randint(-3, 4, (shape[0], shape[1], shape[1])).float()
    leaf = x.to(backend.device).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.gram_matrix(leaf), leaf, slopes.to(backend.device))
    expected = torch.einsum("ncd,ndhw->nchw", slopes + slopes.mT, x)
    assert torch.equal(gradient.cpu(), expected)  # small integers: every sum is exact
    assert gradient.is_contiguous(memory_format=format)


@given(p=problems())
def test_gradient_matches_reference(backend, p):
    inputs = [t for t in inputs_of(backend, p) if t is not None]
    ours, theirs = [t.requires_grad_() for t in inputs], [t.detach().double().requires_grad_() for t in inputs]
    expected = gram_matrix_reference(*theirs, normalize=True)
    g = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(p["seed"])).to(
        expected
    )
    out = ops.gram_matrix(*ours, normalize=True)
    for a, b in zip(torch.autograd.grad(out, ours, g.to(out)), torch.autograd.grad(expected, theirs, g)):
        assert a.dtype == p["dtype"]
        assert_close(a, b)


@pytest.mark.parametrize("normalize", [False, True])
def test_first_and_second_gradient(backend, normalize):
    g = backend.vary(1)
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=g).to(backend.device).requires_grad_()
    y = torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=g).to(backend.device).requires_grad_()
    for inputs in ((x,), (x, y)):
        torch.autograd.gradcheck(lambda *t: ops.gram_matrix(*t, normalize=normalize), inputs)
        torch.autograd.gradgradcheck(lambda *t: ops.gram_matrix(*t, normalize=normalize), inputs)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("channels", [20, 70])
def test_layouts_and_threads_give_equal_bits(backend, channels, dtype):
    x = torch.randn(2, channels, 60, 50, generator=backend.vary(2)).to(backend.device, dtype)
    for image in (x, x.to(memory_format=torch.channels_last)):
        expected = ops.gram_matrix(image)
        shifted = lay_out(image.permute(0, 2, 3, 1), "shifted").permute(0, 3, 1, 2)
        if image is x:
            shifted = lay_out(x, "shifted")
        assert torch.equal(ops.gram_matrix(shifted), expected)
        torch.set_num_threads(1)
        assert torch.equal(ops.gram_matrix(image), expected)
        torch.set_num_threads(2)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [3, 8, 17, 28, 32, 65])
def test_two_inputs_give_what_one_gives(backend, channels, dtype, format):
    x = torch.randn(1, channels, 9, 16, generator=backend.vary(channels), dtype=dtype)
    x = x.to(backend.device, memory_format=format)
    both = ops.gram_matrix(x, x.clone())
    assert torch.equal(both.triu(), ops.gram_matrix(x).triu())


@pytest.mark.parametrize("channels", [5, 20, 66])
def test_not_finite_values_stay_in_their_channel(backend, channels):
    x = torch.randn(1, channels, 9, 9, generator=backend.vary(4)).to(backend.device)
    clean, last = ops.gram_matrix(x), channels - 1
    x[0, 3, 8, 8], x[0, last, 0, 0] = torch.nan, torch.inf
    for format in FORMATS:
        out = ops.gram_matrix(x.to(memory_format=format))[0]
        rest = [c for c in range(channels) if c not in (3, last)]
        torch.testing.assert_close(out[rest][:, rest], clean[0, rest][:, rest])
        assert out[3].isnan().all()
        assert not out[last].isfinite().any()


def test_sums_of_16_bit_features_do_not_stall(backend):
    x = torch.ones(1, 1, 512, 512, dtype=torch.bfloat16, device=backend.device)
    assert ops.gram_matrix(x).item() == 512 * 512


def test_tf32_is_used_only_where_torch_allows_it(backend):
    x = torch.randn(1, 70, 16, 16, generator=backend.vary(5)).to(backend.device)
    exact, expected = ops.gram_matrix(x), gram_matrix_reference(x.double())
    with tf32(torch.backends.cuda.matmul):
        rounded = ops.gram_matrix(x)
    torch.testing.assert_close(exact.double(), expected, atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(rounded.double(), expected, atol=0.1, rtol=1e-3)
    assert torch.equal(rounded, rounded.mT)
    assert torch.equal(rounded, exact) == (backend.name == "cpu")


def test_vmap_equals_a_loop(backend):
    x = torch.randn(3, 2, 4, 5, 6, generator=backend.vary(6)).to(backend.device)
    for call, images in (
        (ops.gram_matrix, (x,)),
        (lambda a, b: ops.gram_matrix(a, b), (x, x[:, :, :2])),
    ):
        mapped = torch.func.vmap(call, in_dims=1)(*images)
        torch.testing.assert_close(mapped, torch.stack([call(*(t[:, i] for t in images)) for i in range(2)]))


def test_bad_arguments(backend):
    x = torch.rand(2, 3, 4, 5, device=backend.device)
    with pytest.raises(ValueError, match=r"gram_matrix: x: expected shape \(N, C, H, W\), got \(3, 4, 5\)"):
        ops.gram_matrix(x[0])
    for y in (x[0], x[:1], x[..., :4]):
        with pytest.raises(ValueError, match="gram_matrix: y: expected shape"):
            ops.gram_matrix(x, y)
    with pytest.raises(TypeError, match="y: expected dtype float32 as x, got float64"):
        ops.gram_matrix(x, x.double())
    with pytest.raises(TypeError, match="x: expected dtype float16"):
        ops.gram_matrix(x.int())
