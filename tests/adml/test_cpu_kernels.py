"""The kernels for CPUs against the formulas that they compute; `test_gathered` has the products."""

import pytest
import torch

from das_lib.adml.bank import Delta, Part, add_delta
from das_lib.adml.cpu import fused
from das_lib.adml.scores import Scores

K = 5


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_they_run_here():
    assert fused.kernels(torch.zeros(1)) is not None, "Numba is a dependency"
    assert fused.kernels(torch.zeros(1, dtype=torch.bfloat16)) is None
    assert fused.kernels(torch.zeros(1, device="meta")) is None


def test_kernels_of_other_sources_are_not_taken_from_the_disk(tmp_path, monkeypatch):
    from das_lib.adml.cpu.openmp import cache_folder

    monkeypatch.setenv("DAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tile.py").write_text("one")
    before = cache_folder(tmp_path)
    assert before == cache_folder(tmp_path)
    assert before.parent == tmp_path / "cache" / "kernels"
    (tmp_path / "tile.py").write_text("two")
    assert cache_folder(tmp_path) != before


# A width below, at and above what is under way at once, and with a rest.
@pytest.mark.parametrize("width", [1, 7, 64, 100, 8192, 2713])
def test_peaks_equal_torch(width, threads):
    logits = 5 * draw(2, 3, width)
    logits[0, 0] = -torch.inf
    logits[1, 1, : width // 2] = -torch.inf
    logits[1, 2] -= 300  # the exponentials of the unshifted ones would vanish
    top, logz = fused.kernels(logits).peaks(logits)
    assert torch.equal(top, logits.amax(-1))
    torch.testing.assert_close(logz, logits.double().logsumexp(-1).float(), atol=1e-6, rtol=3e-7)


def test_peaks_show_what_is_no_number():
    logits = torch.zeros(3, 100)
    logits[0, 10], logits[1, 99], logits[2, 98] = torch.nan, torch.nan, torch.inf
    _, logz = fused.kernels(logits).peaks(logits)
    assert logz.isnan().tolist() == [True, True, True]


def test_peaks_read_logits_in_any_layout():
    logits = draw(70, 3).t()
    top, logz = fused.kernels(logits).peaks(logits)
    assert torch.equal(top, logits.amax(-1))
    torch.testing.assert_close(logz, logits.logsumexp(-1))


@pytest.mark.parametrize("slices", [2, 3])
def test_scores_are_those_without_kernels(slices, monkeypatch):
    logits = 3 * draw(2, 4, 999)
    logits[..., :400] = -torch.inf  # a slice and more that is suppressed as a whole
    parts = logits.chunk(slices, -1)
    native = Scores.of(parts)
    monkeypatch.setattr(fused, "load", lambda: None)
    other = Scores.of(parts)
    torch.testing.assert_close(native.c_BN, other.c_BN)
    torch.testing.assert_close(native.logz_BN, other.logz_BN)


# One position of one utterance, and a prompt of several; branches before the first change.
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_changes_are_added_where_they_belong(batch, length, threads, monkeypatch):
    width, ranks = 24, (3, 5)
    parts = (
        Part(draw(K, ranks[0], 24), slice(0, 3), slice(0, 24)),
        Part(draw(K, ranks[1], 24), slice(3, 8), slice(48, 72)),
    )
    delta = Delta(draw(K, width, sum(ranks)), parts)
    x_NBTI, y_NBTO = draw(K + 1, batch, length, width), draw(K + 1, batch, length, 72)
    native = add_delta(y_NBTO.clone(), x_NBTI, delta)
    want = y_NBTO.double()
    u_KBTR = torch.einsum("kbti,kir->kbtr", x_NBTI[1:].double(), delta.a_KIR.double())
    for part in parts:
        b_KRO = part.b_KRO.double()
        change = torch.einsum("kbtr,kro->kbto", u_KBTR[..., part.ranks], b_KRO)
        want[1:, ..., part.outputs] += change
    torch.testing.assert_close(native, want.float(), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(fused, "load", lambda: None)
    torch.testing.assert_close(add_delta(y_NBTO.clone(), x_NBTI, delta), native)
