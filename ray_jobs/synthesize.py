"""Speech: a TTS engine speaks each domain's texts.

python -m ray_jobs.synthesize --config configs/demo.yaml
"""

import sys
import time
from functools import partial
from pathlib import Path

from das_lib.cards import CARD
from das_lib.config.tree import Tts
from das_lib.models import resolve_model
from das_lib.speech.card import speech_card
from das_lib.speech.speak import SpeakTexts
from ray_jobs.flow import OneOutput, pending_items, run_items
from ray_jobs.run import Run


def synthesize(run: Run) -> None:
    """Make the speech dataset of every domain that lacks one."""
    started = time.monotonic()
    todo = run.pending(run.plan.speech)
    if not todo:
        return
    texts = {domain: run.source(run.plan.texts[domain]) for domain in todo}
    config = run.config
    base = None if config.tts.max_cer is None else resolve_model(config.asr.model)
    run_items(
        "speech",
        pending_items(texts, todo),
        partial(OneOutput, partial(speaker, config.tts, config.asr.language, base)),
        todo,
        config.tts.pool,
    )
    for dataset in todo.values():
        dataset.folder.write(CARD, speech_card(dataset).encode())
    run.finish(todo, {domain: text.summary().rows_out for domain, text in texts.items()}, started)
    for dataset in todo.values():
        dataset.require_rows()


def speaker(tts: Tts, language: str | None, base: Path | None) -> SpeakTexts:
    """A worker's voices, and the base that hears them where ``base`` names it."""
    if base is None or tts.max_cer is None:
        return SpeakTexts(tts, language)
    from das_lib.speech.round_trip import RoundTrip  # torch, which speaking does without

    return SpeakTexts(tts, language, RoundTrip(base, language, tts.max_cer))


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["synthesize", *sys.argv[1:]]))
