import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from das_lib.adml import named_strategy
from das_lib.config import json_schema, load_config, parse_config, to_yaml
from das_lib.config.tree import Adml
from das_lib.errors import DasError

ROOT = Path(__file__).parents[2]
SEED = {"use_case": "questions", "skills": ["a"], "persona": "teenager", "instruction": "ask"}


def minimal(**changes):
    domain = {"name": "music", "utterances": 4, "seeds": [SEED]}
    return {"name": "x", "output": "runs/x", "domains": [domain], **changes}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads_and_survives_a_round_trip(path):
    config = load_config(path)
    assert parse_config(yaml.safe_load(to_yaml(config))) == config


def test_the_paper_configuration_has_the_papers_values():
    config = load_config(ROOT / "configs" / "paper.yaml")
    assert (config.lora.rank, config.lora.alpha, config.lora.rank_stabilized) == (32, 64, True)
    assert (config.lora.init, config.lora.targets) == ("pissa", ("q_proj", "v_proj"))
    fit = config.train
    assert (fit.learning_rate, fit.batch_size, fit.epochs, fit.warmup) == (3e-6, 16, 10, 0.1)
    assert (fit.style, fit.interpolation, fit.validation, fit.anchor) == ("text", 1, 0, 0)
    assert not config.augment.active
    assert config.baselines.learning_rate == 3e-6
    assert (config.adml.strategy, config.adml.tau) == ("adml", 0.025)
    assert [d.utterances - d.held_out for d in config.domains] == [44_000, 31_000, 46_000]
    assert config.llm.model == "meta-llama/Meta-Llama-3-70B-Instruct"
    assert config.llm.engine_kwargs["tensor_parallel_size"] == 8
    assert config.llm.num_gpus == 8
    assert (config.tts.engine, config.asr.model) == ("coqui", "openai/whisper-base")
    pools = (config.tts.pool, config.features, config.train.pool, config.serve.pool)
    assert all(pool.num_gpus > 0 for pool in pools)


def test_the_committed_schema_is_current():
    committed = (ROOT / "schemas" / "config.schema.json").read_text()
    assert committed == json_schema(), "run: das config schema > schemas/config.schema.json"
    assert json.loads(committed)["title"] == "Config"


def test_an_unknown_key_is_answered_with_the_known_ones():
    with pytest.raises(DasError, match=r"train\.learning_rat: unknown key; did you mean") as error:
        parse_config(minimal(train={"learning_rat": 1e-4}))
    assert "warmup" in str(error.value)


def test_an_unknown_key_in_a_list_names_its_place():
    broken = minimal()
    broken["domains"][0]["texts_file"] = "x"
    with pytest.raises(DasError, match=r"domains\.0\.texts_file: unknown key.*known here: name"):
        parse_config(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adml": {"tau": 1.5}}, r"adml\.tau: 1\.5: .*from 0 to 1, or auto"),
        ({"train": {"batch_size": 0}}, r"train\.batch_size: 0: .*greater than or equal to 1"),
        ({"text": {"min_words": 9, "max_words": 3}}, r"min_words=9 is above text\.max_words=3"),
        ({"adml": {"strategy": "vote"}}, r"adml\.strategy: 'vote': .*'majority'"),
        ({"decode": {"beams": 2, "lookahead": 4}}, r"decode: .*lookahead=4 with beams=2"),
        (
            {"decode": {"beams": 2}, "adml": {"strategy": "mean_logprob"}},
            r"decode\.beams=2 with adml\.strategy=mean_logprob",
        ),
        ({"decode": {"precision": "float16"}}, r"precision=float16 with serve\.pool\.num_gpus=0"),
        (
            {"decode": {"precision": "int8"}, "serve": {"pool": {"num_gpus": 1}}},
            r"precision=int8 with serve\.pool\.num_gpus=1",
        ),
        ({"lora": {"targets": ["w_proj"]}}, r"lora\.targets\.0: 'w_proj'"),
        ({"domains": []}, r"domains: .*at least 1"),
        ({"augment": {"snr_db": [9, 3]}}, r"augment\.snr_db: .*the range \[9\.0, 3\.0\] falls"),
        ({"baselines": {"methods": ["ft"]}}, r"baselines\.methods\.0: 'ft': .*'ft-decoder'"),
        ({"adml": {"tau": "auto"}}, r"adml\.tau=auto with held_out=0 in every domain"),
        (
            {"adml": {"tau": "auto", "strategy": "max"}},
            r"adml\.tau=auto with adml\.strategy=max, which has no tau",
        ),
        ({"train": {"patience": 2, "validation": 0}}, r"train: .*patience=2 with validation=0"),
    ],
)
def test_a_value_out_of_range_names_field_value_and_bound(changes, message):
    with pytest.raises(DasError, match=message):
        parse_config(minimal(**changes))


def test_all_faults_are_named_at_once():
    with pytest.raises(DasError) as error:
        parse_config(minimal(adml={"tau": 2}, train={"epochs": 0}, nonsense=1))
    assert all(field in str(error.value) for field in ("adml.tau", "train.epochs", "nonsense"))


def test_a_domain_has_seeds_or_texts_but_not_both():
    both = {"name": "m", "utterances": 4, "seeds": [SEED], "texts": "a.txt"}
    with pytest.raises(DasError, match="seeds and texts; give one"):
        parse_config(minimal(domains=[both]))
    with pytest.raises(DasError, match="neither seeds nor instructions nor texts"):
        parse_config(minimal(domains=[{"name": "m", "utterances": 4}]))


def test_names_must_differ():
    domain = minimal()["domains"][0]
    with pytest.raises(DasError, match="domains: music given twice"):
        parse_config(minimal(domains=[domain, domain]))
    sets = [{"name": "synthetic_music", "manifest": "m.jsonl"}]
    with pytest.raises(DasError, match="held-out set"):
        parse_config(minimal(evaluation={"test_sets": sets}))


def test_overrides_are_dotted_keys_with_yaml_values(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(minimal()))
    config = load_config(path, ("adml.tau=0.5", "lora.targets=[q_proj]", "asr.language=null"))
    assert (config.adml.tau, config.lora.targets, config.asr.language) == (0.5, ("q_proj",), None)
    with pytest.raises(DasError, match="no '='"):
        load_config(path, ("adml.tau",))
    with pytest.raises(DasError, match="lists are edited"):
        load_config(path, ("domains.0.name=x",))


def test_a_missing_or_broken_file_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(DasError, match=r"cannot be read.*configs/demo\.yaml"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_text("a: [1")
    with pytest.raises(DasError, match="no valid YAML"):
        load_config(tmp_path / "b.yaml")


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_any_mapping_is_a_configuration_or_a_das_error(tree):
    with pytest.raises(DasError):
        parse_config(tree)


def test_every_strategy_that_a_configuration_may_name_exists():
    names = get_args(Adml.model_fields["strategy"].annotation)
    kinds = [type(named_strategy(name, tau=0.5)) for name in names]
    assert len(kinds) == 6
    assert len(set(kinds)) == 5  # both means are one class
