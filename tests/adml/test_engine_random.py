"""Random adapter mixes: what PEFT can train on a decoder, the engine decodes as the loop does."""

import tempfile
from pathlib import Path

import pytest
from adml_helpers import Loop, clips, prompt, random_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from das_lib.adml import Adml, Transcriber

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LIMIT = 8
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

adapter = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "r": st.integers(1, 9),
        "lora_alpha": st.floats(0.5, 64),
        "use_rslora": st.booleans(),
        "targets": st.sets(st.sampled_from(PROJECTIONS), min_size=1),
        "layer": st.sampled_from([r"\d+", "0", "1"]),
        "size": st.floats(0.05, 0.4),
    }
)


@settings(
    deadline=None,
    max_examples=12,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(adapter, min_size=1, max_size=3), st.sampled_from([0.0, 0.025, 0.2, 1.0]))
def test_any_mix_of_adapters_decodes_as_separate_full_passes_do(base, specs, tau):
    with tempfile.TemporaryDirectory() as folder:
        folders = []
        for i, spec in enumerate(specs):
            spec = dict(spec)
            targets, layer = "|".join(sorted(spec.pop("targets"))), spec.pop("layer")
            pattern = rf".*decoder\.layers\.{layer}\..*({targets})"
            path = Path(folder) / f"a{i}"
            folders.append(random_adapter(path, base, target_modules=pattern, **spec))
        named = {path.name: path for path in folders}
        engine = Transcriber.from_pretrained(base, named, language="en", max_new_tokens=LIMIT)
        loop = Loop(base, folders)
        audio = clips(3, seed=len(specs))
        rows = engine.transcribe(audio, {"das": Adml(tau=tau)})
        for mel, row in zip(engine.features(audio), rows, strict=True):
            steps = loop(mel, prompt(loop.models[0]), tau=tau, limit=LIMIT)
            assert row["das"].tokens == [step.token for step in steps]
            assert row["das"].branch == [step.branch for step in steps]
