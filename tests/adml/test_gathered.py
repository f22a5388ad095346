"""Few vectors past many matrices: the kernel for CPUs, and torch's products in its place."""

import pytest
import torch

from das_lib.adml.cpu import fused
from das_lib.adml.gathered import gathered_matmul

U, G = 4, 3


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


# Inputs that are no multiple of the four lines read at once, one vector and many.
@pytest.mark.parametrize("inputs", [1, 4, 30, 64])
@pytest.mark.parametrize("outputs", [1, 8, 37])
@pytest.mark.parametrize("count", [1, 2, 5, 26, 104])
def test_the_kernel_equals_torch_at_every_shape(inputs, outputs, count, threads):
    rows_B = torch.tensor([2, 0, 3, 3, 1])
    x_BGMI, w_UGIO = draw(len(rows_B), G, count, inputs), draw(U, G, inputs, outputs)
    want = (x_BGMI.double() @ w_UGIO[rows_B].double()).float()
    assert fused.load() is not None, "Numba is a dependency"
    torch.testing.assert_close(gathered_matmul(x_BGMI, w_UGIO, rows_B), want)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (3, 0, 1, 2), (0, 1, 3, 2)])
def test_vectors_may_lie_in_any_order(order):
    x_BGMI, w_UGIO, rows_B = draw(2, G, 5, 16), draw(U, G, 16, 8), torch.tensor([3, 1])
    back = [order.index(axis) for axis in range(4)]
    x_BGMI = x_BGMI.permute(order).contiguous().permute(back)
    want = gathered_matmul(x_BGMI.contiguous(), w_UGIO, rows_B)
    assert torch.equal(gathered_matmul(x_BGMI, w_UGIO, rows_B), want)


def test_a_row_does_not_depend_on_the_batch_or_the_threads(threads):
    x_BGMI, w_UGIO, rows_B = draw(5, G, 4, 64), draw(U, G, 64, 30), torch.tensor([0, 1, 2, 3, 0])
    whole = gathered_matmul(x_BGMI, w_UGIO, rows_B)
    torch.set_num_threads(1)
    for b in range(len(rows_B)):
        for m in range(4):
            one = gathered_matmul(x_BGMI[b : b + 1, :, m : m + 1], w_UGIO, rows_B[b : b + 1])
            assert torch.equal(one[0, :, 0], whole[b, :, m])


def test_infinities_and_nan_stay_what_they_are():
    x_BGMI, w_UGIO = torch.ones(1, 1, 1, 4), torch.ones(3, 1, 4, 2)
    w_UGIO[0, 0, 1, 0], w_UGIO[1, 0, 2, 1], w_UGIO[2, 0, 3, 0] = torch.inf, -torch.inf, torch.nan
    y_BGMO = gathered_matmul(x_BGMI.expand(3, 1, 1, 4), w_UGIO, torch.arange(3))
    want = torch.tensor([[torch.inf, 4], [4, -torch.inf], [torch.nan, 4]])
    torch.testing.assert_close(y_BGMO[:, 0, 0], want, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_numba_and_in_bfloat16_torch_multiplies(dtype, monkeypatch):
    monkeypatch.setattr(fused, "load", lambda: None)
    x_BGMI, w_UGIO = draw(3, G, 2, 16, dtype=dtype), draw(U, G, 16, 8, dtype=dtype)
    rows_B = torch.tensor([1, 1, 3])
    got = gathered_matmul(x_BGMI.transpose(1, 2).contiguous().transpose(1, 2), w_UGIO, rows_B)
    torch.testing.assert_close(got, torch.matmul(x_BGMI, w_UGIO[rows_B]))


@pytest.mark.parametrize("kernel", [True, False])
def test_a_product_is_added_to_what_stands_in_any_layout(kernel, monkeypatch):
    if not kernel:
        monkeypatch.setattr(fused, "load", lambda: None)
    x_BGMI, w_UGIO = draw(U, G, 7, 70), draw(U, G, 70, 20)
    whole = draw(7, U, G, 25)
    want = whole.clone()
    want[..., 3:23] += torch.matmul(x_BGMI, w_UGIO).permute(2, 0, 1, 3)
    sum_BGMO = whole.permute(1, 2, 0, 3)[..., 3:23]
    assert gathered_matmul(x_BGMI, w_UGIO, sum_BGMO=sum_BGMO) is sum_BGMO
    torch.testing.assert_close(whole, want, atol=1e-5, rtol=1e-5)
