"""Which texts are on their domain."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from das_lib.config.data import OnDomain
from das_lib.config.tree import Domain, Seed, Text
from das_lib.text.relevance import Relevance, describe_domain, sentence_embedder, topics
from das_lib.text.select import CHUNK, Candidate, Selection

DATA = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data"))
MUSIC = Domain(
    name="music",
    utterances=40,
    seeds=(
        Seed(
            use_case="question generation in English",
            skills=("singer", "album", "song title", "concert", "musical instrument"),
            persona="teenager",
            instruction="Generate questions about music that one would ask a voice assistant.",
        ),
    ),
)
AXES = {"music": 0, "song": 0, "food": 1, "bread": 1, "car": 2}


def toy(texts):
    """Counts of known words, as vectors of length 1."""
    found = np.zeros((len(texts), 3), np.float32)
    for row, text in zip(found, texts, strict=True):
        for word in text.lower().split():
            if word in AXES:
                row[AXES[word]] += 1
        row /= max(np.linalg.norm(row), 1e-9)
    return found


def test_a_text_leads_where_it_is_nearer_to_the_domain_than_to_any_topic():
    found = Relevance(toy, ["music"], ["food", "car"]).leads(["song", "bread", "song song bread"])
    assert found.tolist() == pytest.approx([1, -1, (2 - 1) / 5**0.5])
    assert Relevance(toy, ["music"], ["food"]).leads([]).shape == (0,)


def test_topics_of_the_domain_itself_do_not_count():
    alone = Relevance(toy, ["music"], ["song"])
    assert alone.leads(["song"])[0] >= 1


def test_what_is_off_the_domain_is_rejected_unless_enough_was_taken():
    relevance = Relevance(toy, ["music"], ["food", "car"])
    selection = Selection(
        MUSIC, Text(on_domain=OnDomain(margin=0.1), near_duplicate=1), None, relevance
    )
    total = CHUNK + 100  # more than are looked at together
    given = [f"a {'song' if n % 2 else 'bread'} called {n}x" for n in range(total)]
    selection.offer(Candidate(f"c{n}", text, "s") for n, text in enumerate(given))
    outcome = selection.outcome()
    texts = outcome.rows["text"].to_pylist()
    assert len(texts) == MUSIC.utterances
    assert all(" song " in text for text in texts)
    reasons = [reject.reason for reject in outcome.rejects]
    assert total == len(texts) + len(reasons)
    assert set(reasons) == {"off-domain", "surplus"}
    assert all(" bread " in r.detail for r in outcome.rejects if r.reason == "off-domain")


def test_the_configuration_decides_whether_the_domain_matters():
    from das_lib.config import parse_config
    from ray_jobs.generate import embedder, selection

    seeds = [MUSIC.seeds[0].model_dump()]
    domain = {"name": "music", "utterances": 9, "seeds": seeds}
    tree = {"name": "t", "output": "o", "domains": [domain]}
    free, bound = (parse_config(tree | {"text": t}) for t in ({}, {"on_domain": {}}))
    assert embedder(free.text) is None
    text = Candidate("c", "the bread and the car", "s")
    for config, embed, taken in ((free, None, 1), (bound, toy, 0)):
        chosen = selection(config, config.domains[0], embed)
        assert chosen.offer([text]).accepted == taken


def test_a_domain_is_described_by_its_name_skills_and_instructions():
    described = describe_domain(MUSIC)
    assert described[0] == "music"
    assert {"singer (music)", MUSIC.seeds[0].instruction} <= set(described)
    assert len(topics()) == len(set(topics())) > 30


@pytest.mark.slow
def test_the_packaged_embedder_tells_music_from_the_rest():
    from das_lib.models import resolve_model

    embed = sentence_embedder(resolve_model(OnDomain().model))
    relevance = Relevance(embed, describe_domain(MUSIC), topics())
    on = ["Who sang the song Hello?", "When did the Beatles release their first album?"]
    off = ["Can you find me a good dentist?", "What is the best place to eat in Paris?"]
    assert (relevance.leads(on) > 0).all()
    assert (relevance.leads(off) < 0).all()

    if not (DATA / "texts").is_dir():
        pytest.skip(f"no {DATA / 'texts'}; set DAS_SHARED_DATA to the folder of the shared data")
    shares = {}
    for domain in ("music", "weather"):
        lines = (DATA / "texts" / f"{domain}.jsonl").read_text().splitlines()
        known = [text for line in lines for text in json.loads(line)["texts"]][::8]
        shares[domain] = float((relevance.leads(known) >= 0).mean())
    assert shares["music"] > 0.6
    assert shares["weather"] < 0.1
