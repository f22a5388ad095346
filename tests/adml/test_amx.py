"""Products in three of bfloat16, on CPUs with a matrix unit."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.cpu.fused import load_amx
from das_lib.adml.linear import pack

amx = load_amx()
pytestmark = pytest.mark.skipif(amx is None, reason="needs a CPU with AMX for bfloat16")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def encoder_linear(weight_OI, bias_O):
    return pack(weight_OI, bias_O, precision="bfloat16", device=CPU, rows=1500)


# Rows of one block with a rest, of a chunk for each thread, and of several with a rest.
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 256, 700])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 96), (512, 64), (2048, 32)])
def test_three_products_are_far_closer_than_one(rows, inputs, outputs, threads):
    x, weight_OI, bias_O = (
        torch.randn(rows, inputs),
        torch.randn(outputs, inputs),
        torch.randn(outputs),
    )
    want = F.linear(x.double(), weight_OI.double(), bias_O.double())
    found = encoder_linear(weight_OI, bias_O)(x)
    bound = inputs**0.5  # of a product's terms: their root mean square is 1
    assert (found - want).abs().max() < 2**-14 * bound
    one = F.linear(x.bfloat16().double(), weight_OI.bfloat16().double(), bias_O.double())
    assert (one - want).abs().max() > 2**-11 * bound


def test_a_row_does_not_depend_on_the_others(threads):
    x, weight_OI, bias_O = torch.randn(300, 64), torch.randn(64, 64), torch.randn(64)
    linear = encoder_linear(weight_OI, bias_O)
    alone = torch.cat([linear(row.unsqueeze(0)) for row in x])
    assert torch.equal(linear(x), alone)


def test_any_layout_another_bias_and_gelu():
    x, weight_OI, bias_O = (
        torch.randn(2, 64, 40).transpose(1, 2),
        torch.randn(32, 64),
        torch.randn(32),
    )
    linear = encoder_linear(weight_OI, bias_O).with_bias(torch.zeros(32))
    want = F.gelu(F.linear(x, weight_OI))
    torch.testing.assert_close(linear(x, gelu=True), want, atol=1e-3, rtol=1e-3)


def test_sizes_that_are_no_whole_blocks_are_multiplied_in_float32():
    x, weight_OI, bias_O = torch.randn(40, 72), torch.randn(50, 72), torch.randn(50)
    want = F.linear(x.double(), weight_OI.double(), bias_O.double()).float()
    torch.testing.assert_close(encoder_linear(weight_OI, bias_O)(x), want, atol=2e-5, rtol=1e-5)


def test_others_who_use_the_unit_are_not_disturbed(threads):
    x, weight_OI, bias_O = torch.randn(64, 64), torch.randn(64, 64), torch.randn(64)
    ours = encoder_linear(weight_OI, bias_O)
    others = pack(weight_OI, bias_O, precision="bfloat16-all", device=CPU, rows=1500)
    before = others(x.bfloat16())
    mine = ours(x)
    assert torch.equal(others(x.bfloat16()), before)
    assert torch.equal(ours(x), mine)
