"""Texts of the fake LLM, in rounds, on a Ray of this process."""

import pytest
import yaml
from job_project import make_project

from das_lib.config.load import load_config
from das_lib.errors import DasError
from ray_jobs.generate import generate
from ray_jobs.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SEED = {
    "use_case": "question generation in English",
    "skills": ["singer", "album"],
    "persona": "teenager",
    "instruction": "Generate questions about music.",
}


def make_run(tiny, folder, domains, **text) -> Run:
    project = make_project(
        tiny,
        folder,
        domains=("own",),
        llm={"engine": "fake", "batch_rows": 4},
        text={"instructions_per_seed": 3, "texts_per_reply": 5, "near_duplicate": 1, **text},
    )
    tree = yaml.safe_load(project.config.read_text())
    tree["domains"] += [
        {"name": name, **more}
        if "instructions" in more
        else {"name": name, "seeds": [{**SEED, "instruction": f"Generate questions about {name}."}]}
        | more
        for name, more in domains.items()
    ]
    project.config.write_text(yaml.safe_dump(tree))
    return Run(load_config(project.config))


def test_rounds_go_on_until_the_texts_suffice_or_hardly_any_comes(two_cpus, tiny, tmp_path, capfd):
    # The fake LLM writes 15 texts a round.
    catalogue = tmp_path / "artist.txt"
    catalogue.write_text("Dua Lipa\nAdele\nBjörk\n")
    domains = {
        "music": {"utterances": 40, "held_out": 4, "catalogues": {"artist": str(catalogue)}},
        "sports": {"utterances": 12},
        "greed": {"utterances": 500},
        "edited": {"utterances": 17, "instructions": str(tmp_path / "edited.txt")},
    }
    (tmp_path / "edited.txt").write_text("Ask about rivers.\nAsk about bridges.\n")
    run = make_run(tiny, tmp_path, domains, max_rounds=4)
    generate(run)
    texts = {name: run.source(run.plan.texts[name]).read() for name in run.plan.texts}
    assert {name: table.num_rows for name, table in texts.items()} == {
        "own": 12,
        "music": 40,
        "sports": 12,
        "greed": pytest.approx(60, abs=3),
        "edited": 17,
    }
    for name in domains:
        assert len(set(texts[name]["id"].to_pylist())) == texts[name].num_rows
    assert texts["music"]["split"].to_pylist().count("test") == 4
    told = capfd.readouterr().err
    assert "of 500 after round 4 (text.max_rounds=4)" in told
    assert "lower utterances" in told

    rounds = [f"{step.stage}/{step.name}" for step in run.plan.further_rounds]
    music = [r for r in rounds if "music" in r]
    assert music == [
        "instructions/music-round1",
        "replies/music-round1",
        "instructions/music-round2",
        "replies/music-round2",
    ]
    assert not [r for r in rounds if "sports" in r]
    summaries = {(s.stage, s.name) for s in run.summaries()}
    assert ("replies", "music-round2") in summaries
    assert [r for r in rounds if "edited" in r] == [
        "instructions/edited-round1",
        "replies/edited-round1",
    ]
    mentioned = [
        row["keywords"][0]
        for step in [run.plan.instructions["music"], *run.plan.further_rounds]
        if step.stage == "instructions" and "music" in step.name
        for row in run.dataset(step).read().to_pylist()
    ]
    assert sorted(mentioned) == sorted(["Dua Lipa", "Adele", "Björk"] * 3)

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    generate(Run(run.config))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == before


def test_a_domain_that_yields_nothing_ends_after_a_round_and_harms_no_other(
    two_cpus, tiny, tmp_path, capfd
):
    domains = {"music": {"utterances": 10}, "sports": {"utterances": 10}}
    # The fake LLM's texts have more words than that, one's own four.
    run = make_run(tiny, tmp_path, domains, max_words=5, improve=2)
    with pytest.raises(DasError, match=r"2 failed, the others are done\. texts/music: none of 15"):
        generate(run)
    assert "0 of 10 after round 1 (text.min_yield=0.02)" in capfd.readouterr().err
    assert run.source(run.plan.texts["own"]).summary().rows_out == 12
    first, second = (run.source(step).read() for step in run.plan.improved["music"])
    given = run.source(run.plan.instructions["music"]).read()
    for before, after in ((given, first), (first, second)):
        told = {row["id"]: row for row in after.to_pylist()}
        for row in before.to_pylist():
            assert told[row["id"]]["instruction"].startswith(f"{row['instruction']} Mention ")
            assert told[row["id"]]["rubric"]
    assert run.dataset(run.plan.texts["music"]).summary().reasons == {"too-long": 15}


def test_texts_are_kept_where_the_llm_leads_a_target_model_most(two_cpus, tiny, tmp_path):
    contrast = {"llm": {"engine": "fake", "temperature": 0}, "keep": 0.5}
    domains = {"music": {"utterances": 20}}
    run = make_run(
        tiny, tmp_path, domains, contrast=contrast, instructions_per_seed=4, max_rounds=3
    )
    generate(run)
    target, judged = (run.source(step).read() for step in run.plan.contrasts["music"])
    assert target.num_rows == judged.num_rows == 4
    best = sorted(
        judged.to_pylist(), key=lambda row: (row["target_score"] - row["strong_score"], row["id"])
    )
    texts = run.source(run.plan.texts["music"])
    # 4 instructions a round, of which 2 are kept, with 5 texts each: two rounds.
    assert texts.summary().rows_out == 20
    assert texts.summary().reasons["low-contrast"] == 4
    sources = set(texts.read()["source"].to_pylist())
    assert {row["id"] for row in best[:2]} <= sources
    assert not {row["id"] for row in best[2:]} & sources
