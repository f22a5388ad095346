"""One training: what it is told, wherever it runs. Light to import, for a driver passes it on."""

from dataclasses import dataclass

from das_lib.config.tree import Baselines, Lora, Train


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """All that one run needs; every path is reachable from every worker."""

    system: str
    """What is made, such as ``lora:music``; see `das_lib.train.methods`."""
    run_name: str
    """Carries the configuration's hash: a run of the same name is resumed."""
    storage_path: str
    """Folder of the runs' checkpoints, local or s3://."""
    feature_files: tuple[tuple[str, ...], ...]
    """FEATURES files of each domain that is learnt from; log-mel where the encoder trains."""
    anchor_files: tuple[tuple[str, ...], ...]
    """FEATURES files of each domain on which it is kept near the base (``train.anchor``)."""
    excluded: tuple[str, ...]
    """Ids of utterances that are not learnt from; see `das_lib.train.leaks`."""
    model: str
    """The base model, a name or a folder; resolved on the machine of each worker."""
    base_name: str
    """The base as the user names it; what the result says it belongs to."""
    lora: Lora
    train: Train
    baselines: Baselines
    seed: int
    out_dir: str
    """Where the PEFT folder or the model's folder appears, local or s3://."""
    curve_dir: str
    """Where the training curve appears, local or s3://."""
