"""Speech: a TTS engine speaks each domain's texts.

python -m ray_jobs.synthesize --config configs/demo.yaml
"""

import sys
import time
from functools import partial

from das_lib.speech.tts import SpeakTexts
from ray_jobs.flow import OneOutput, pending_items, run_items
from ray_jobs.run import Run


def synthesize(run: Run) -> None:
    """Make the speech dataset of every domain that lacks one."""
    started = time.monotonic()
    todo = run.pending(run.plan.speech)
    if not todo:
        return
    texts = {domain: run.source(run.plan.texts[domain]) for domain in todo}
    run_items(
        "speech",
        pending_items(texts, todo),
        partial(OneOutput, partial(SpeakTexts, run.config.tts)),
        todo,
        run.config.tts.pool,
    )
    run.finish(todo, {domain: text.summary().rows_out for domain, text in texts.items()}, started)
    for dataset in todo.values():
        dataset.require_rows()


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["synthesize", *sys.argv[1:]]))
