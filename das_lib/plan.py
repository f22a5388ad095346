"""The steps of a run and what each depends on: a changed setting recomputes what needs it.

A step's folder is ``<stage>/<name>-<hash>``, where the hash covers the settings that determine the
step's rows, the schema's version and the hashes of the steps it reads (after marin's step specs).
Settings that only say how fast (pools, batch sizes of inference) are left out on purpose.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from das_lib.config.tree import UNRELATED, Config
from das_lib.rounds import finished_rounds, round_of, texts_step
from das_lib.steps import (
    SYNTHETIC,
    Step,
    baseline_steps,
    corpus_step,
    fit_params,
    heard_step,
    learnt_from,
    left_out,
    speech_step,
    synthetic_set,
)
from das_lib.storage import Folder
from das_lib.train.leaks import leaked_ids
from das_lib.train.systems import BASE, DAS, LORA, at_tau, system_name
from schemas.transcripts import CORPUS, TRANSCRIPTS, WER


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All steps of a run, by stage; keys are domains, test sets, or (system, test set)."""

    instructions: dict[str, Step]
    improved: dict[str, list[Step]]
    """Instructions improved by self-made rubrics, turn by turn."""
    replies: dict[str, Step]
    """Of the first round; which others there are shows as they are made."""
    contrasts: dict[str, list[Step]]
    """Replies of a target model and judgements of both, where it is configured."""
    further_rounds: tuple[Step, ...] = ()
    """Instructions and replies of the finished rounds after the first."""
    texts: dict[str, Step]
    speech: dict[str, Step]
    features: dict[str, Step]
    adapters: dict[str, Step]
    spectrograms: dict[str, Step]
    """What methods that train the encoder learn from."""
    baselines: dict[str, Step]
    """What is compared with, by system; see `das_lib.train.methods`."""
    corpora: dict[str, Step]
    transcripts: dict[tuple[str, str], Step]
    trials: dict[tuple[str, str], Step]
    """Transcripts with each margin, by which tau is chosen."""
    calibration: Step | None
    """The choice of tau, where the configuration leaves it open."""
    report: Step

    @property
    def steps(self) -> list[Step]:
        """All of them, in the order of the work."""
        return [
            *self.instructions.values(),
            *(step for turns in self.improved.values() for step in turns),
            *self.replies.values(),
            *(step for steps in self.contrasts.values() for step in steps),
            *self.further_rounds,
            *self.texts.values(),
            *self.speech.values(),
            *self.features.values(),
            *self.adapters.values(),
            *self.spectrograms.values(),
            *self.baselines.values(),
            *self.corpora.values(),
            *self.trials.values(),
            *([self.calibration] if self.calibration else []),
            *self.transcripts.values(),
            self.report,
        ]

    @property
    def compared(self) -> dict[tuple[str, str], Step]:
        """What the trials are compared with: the base and each adapter alone on their sets."""
        return alone_on(self.transcripts, self.adapters, {name for _, name in self.trials})

    @property
    def systems(self) -> list[str]:
        """``base``, ``lora:<domain>`` for each domain, ``das``, then the baselines."""
        return list(dict.fromkeys(system for system, _ in self.transcripts))


def alone_on(
    transcripts: Mapping[tuple[str, str], Step], domains: Iterable[str], sets: Collection[str]
) -> dict[tuple[str, str], Step]:
    """Transcripts of some test sets by the base and by each adapter alone."""
    alone = {BASE, *(system_name(LORA, domain) for domain in domains)}
    return {key: step for key, step in transcripts.items() if key[0] in alone and key[1] in sets}


def plan_run(config: Config, output: Folder) -> Plan:
    """The steps of ``config`` with what is known of the texts in ``output``.

    An adapter that is kept from texts which a test set tests is another adapter than one that was
    not: it has another hash, and so has all that depends on it. A test set that shares no text
    with the training changes nothing.

    Raises:
        DasError: See `build_plan`.
    """
    plan = build_plan(config)
    datasets = {domain: step.dataset(output) for domain, step in plan.texts.items()}
    columns = ["id", "text", "split"]
    texts = {d: dataset.read(columns) for d, dataset in datasets.items() if dataset.finished}
    leaked = leaked_ids(config, texts)
    plan = build_plan(config, leaked) if leaked else plan
    rounds = [list(finished_rounds(config, domain, output))[1:] for domain in config.spoken]
    further = [step for domain in rounds for found in domain for step in found.steps]
    return replace(plan, further_rounds=tuple(further))


def build_plan(config: Config, excluded: Mapping[str, Sequence[str]] | None = None) -> Plan:
    """The steps of ``config``; reads the files that it names, to hash what is in them.

    Args:
        config: The run.
        excluded: Ids of texts that a domain's adapter must not learn; see `plan_run`.

    Raises:
        DasError: a file of own texts or a manifest is missing.
    """
    instructions: dict[str, Step] = {}
    improved: dict[str, list[Step]] = {}
    replies: dict[str, Step] = {}
    contrasts: dict[str, list[Step]] = {}
    texts: dict[str, Step] = {}
    for domain in config.spoken:
        first = round_of(config, domain) if domain.written else None
        if first is not None:
            instructions[domain.name], improved[domain.name] = first.instructions, first.improved
            replies[domain.name], contrasts[domain.name] = first.replies, first.contrast
        texts[domain.name] = texts_step(config, domain, first)
    names = [domain.name for domain in config.domains]
    speech = {name: speech_step(config, step) for name, step in texts.items()}
    asr = config.asr.model_dump()
    features = {name: heard_step(config, "features", speech[name]) for name in names}
    excluded = excluded or {}
    adapters = {
        name: Step(
            stage="adapters",
            name=name,
            params={
                "lora": config.lora.model_dump(mode="json"),
                "train": fit_params(config),
                "seed": config.seed,
                **left_out(config, excluded, [name]),
            },
            deps=learnt_from(config, features, [name]),
        )
        for name in names
    }
    spectrograms, baselines = baseline_steps(config, speech, features, excluded)
    corpora = {test_set.name: corpus_step(test_set) for test_set in config.evaluation.test_sets}
    for domain in config.spoken:
        if domain.held_out or domain.name == UNRELATED:
            name = synthetic_set(domain.name)
            corpora[name] = Step(
                stage="corpus", name=name, params={}, schema=CORPUS, deps=(speech[domain.name],)
            )

    def transcribed(
        system: str, used: Sequence[Step], sets: Iterable[str], **params: Any
    ) -> dict[tuple[str, str], Step]:
        return {
            (system, name): Step(
                stage="transcripts",
                name=f"{system.replace(':', '_')}-{name}",
                params={"asr": asr, "decode": decode, "system": system, **params},
                schema=TRANSCRIPTS,
                deps=(corpora[name], *used),
            )
            for name in sets
        }

    decode = config.decode.model_dump(exclude={"lookahead"})
    transcripts = transcribed(BASE, (), corpora)
    for name, step in adapters.items():
        transcripts |= transcribed(system_name(LORA, name), (step,), corpora)
    trials, calibration = {}, None
    if config.adml.tau == "auto":
        sets = [name for name in corpora if name.startswith(SYNTHETIC)]
        for tau in config.calibration.taus:
            trials |= transcribed(at_tau(tau), [*adapters.values()], sets)
        compared = alone_on(transcripts, adapters, sets)
        calibration = Step(
            stage="calibration",
            name="tau",
            params=config.calibration.model_dump(include={"taus", "max_rise"}),
            schema=WER,
            deps=(*compared.values(), *trials.values()),
        )
    chosen = (calibration,) if calibration else ()
    together = (*adapters.values(), *chosen)
    transcripts |= transcribed(DAS, together, corpora, **config.adml.model_dump())
    for system, step in baselines.items():
        transcripts |= transcribed(system, (step,), corpora)
    report = Step(
        stage="report", name="wer", params={}, schema=WER, deps=tuple(transcripts.values())
    )
    return Plan(
        instructions=instructions,
        improved=improved,
        replies=replies,
        contrasts=contrasts,
        texts=texts,
        speech=speech,
        features=features,
        adapters=adapters,
        spectrograms=spectrograms,
        baselines=baselines,
        corpora=corpora,
        transcripts=transcripts,
        trials=trials,
        calibration=calibration,
        report=report,
    )
