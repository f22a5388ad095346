"""What the command line of bulk transcription means, without Ray."""

import pytest

from das_lib.config import parse_config
from das_lib.errors import DasError
from ray_jobs.bulk import choose_adapters
from ray_jobs.cli import _allowed
from ray_jobs.run import Run
from ray_jobs.serving import model_names


@pytest.fixture
def run(tmp_path):
    """A run of two domains whose adapters are not trained."""
    domains = []
    for name in ("music", "sports"):
        (tmp_path / f"{name}.txt").write_text(f"one of {name}\ntwo of {name}\n")
        domains.append({"name": name, "utterances": 2, "texts": str(tmp_path / f"{name}.txt")})
    tree = {"name": "options", "output": str(tmp_path / "out"), "domains": domains}
    return Run(parse_config(tree))


def test_no_adapter_and_adapters_from_elsewhere_need_no_training(run, tmp_path):
    assert choose_adapters(run, "none") == {}
    folders = choose_adapters(run, f"med={tmp_path}/a=b,law=s3://bucket/law")
    assert folders == {"med": f"{tmp_path}/a=b", "law": "s3://bucket/law"}


@pytest.mark.parametrize("wanted", [None, "music", "med=/x,sports"])
def test_a_domain_s_adapter_must_be_trained(run, wanted):
    with pytest.raises(DasError, match="train"):
        choose_adapters(run, wanted)


@pytest.mark.parametrize("wanted", ["", "rock", "med=/x,", "none,music", "base=/x", "=/x"])
def test_what_is_neither_is_refused_by_name(run, wanted):
    with pytest.raises(DasError, match="is none of the domains music, sports; name some of them"):
        choose_adapters(run, wanted)


def test_a_model_is_a_system_of_the_adapters():
    assert model_names({}) == {"base": "base"}
    names = model_names({"music": "/m", "law": "/l"})
    assert names == {"das": "das", "base": "base", "music": "lora:music", "law": "lora:law"}


@pytest.mark.parametrize(
    ("limit", "count", "allowed"),
    [(None, 10, float("inf")), ("0", 10, 0), ("3", 10, 3), ("0.5%", 1000, 5), ("100%", 7, 7)],
)
def test_rejects_are_allowed_by_number_or_by_share(limit, count, allowed):
    assert _allowed(limit)(count) == allowed


@pytest.mark.parametrize("limit", ["-1", "many", "nan", "inf", "%", "1 %%", ""])
def test_any_other_limit_is_refused(limit):
    with pytest.raises(DasError, match=r"--max-rejected: .* is no number of at least 0"):
        _allowed(limit)
