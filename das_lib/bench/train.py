"""`das bench train`: samples a second of adapter training, and what the feature cache is worth.

Every row trains the same adapter on the same clips with the same optimiser steps: from cached
features, with the encoder run again for each sample, and with transformers' own forward pass.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from das_lib.adml.checkpoint import read_checkpoint
from das_lib.adml.encoder import Encoder
from das_lib.bench.timing import measure, publish, ratio, spread
from das_lib.config.tree import Lora, Train
from das_lib.errors import DasError
from das_lib.speech.audio import SAMPLE_RATE, to_flac
from das_lib.train.base import load_base
from das_lib.train.data import Batch, FeatureData
from das_lib.train.features import EncodeFeatures
from das_lib.train.loop import Fitter
from das_lib.train.lora import make_peft_model
from schemas.speech import SPEECH


class EncodingData(FeatureData):
    """The same rows in the same order, their features made anew each time they are read."""

    def __init__(
        self, files: list[str], encode: Callable[[list[str]], np.ndarray], batch: int
    ) -> None:
        super().__init__(files)
        self._encode, self._batch = encode, batch

    def rows(self, seed: int, epoch: int) -> Iterator[dict[str, Any]]:
        """Encode a batch at a time."""
        rows = super().rows(seed, epoch)
        while part := list(islice(rows, self._batch)):
            encoded_BSD = self._encode([row["id"] for row in part])
            for row, encoded_SD in zip(part, encoded_BSD, strict=True):
                yield {**row, "encoded": encoded_SD.tobytes()}


class StockFitter(Fitter):
    """The same steps through transformers' forward pass."""

    def _loss_sum(self, batch: Batch, *, smoothing: float) -> torch.Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        labels_BT: Any = batch.targets
        out = self._whisper(
            encoder_outputs=BaseModelOutput(last_hidden_state=batch.encoded),  # pyright: ignore[reportArgumentType]
            decoder_input_ids=batch.inputs,
            labels=labels_BT,
        )
        return out.loss * (labels_BT >= 0).sum()


def bench_train(
    model_folder: Path,
    clips: Sequence[np.ndarray],
    texts: Sequence[str],
    *,
    batch: int,
    device: str,
    rounds: int,
) -> None:
    """Measure and publish one row a way to train, and one for the features stage."""
    speech = speech_table(clips, texts)
    encode = EncodeFeatures(model_folder, "en", device=device)
    styled = EncodeFeatures(model_folder, "en", device=device, base_style=True)
    encoder = Encoder(
        read_checkpoint(model_folder), precision="float32", device=torch.device(device)
    )
    mel_BFT = encode.log_mel(list(clips))
    mel_by_id = dict(zip(speech["id"].to_pylist(), mel_BFT, strict=True))

    def again(ids: list[str]) -> np.ndarray:
        encoded_BSD = encoder(torch.stack([mel_by_id[row_id] for row_id in ids]))
        return encoded_BSD.to(torch.float16).cpu().numpy()

    with tempfile.TemporaryDirectory() as folder:
        file, again_file = (str(Path(folder) / f"{n}.parquet") for n in ("features", "again"))

        def features(stage: EncodeFeatures, path: str) -> None:
            outcome = stage(speech)
            if outcome.rejects:
                raise DasError(f"--audio: {outcome.rejects[0]}; name other clips")
            pq.write_table(outcome.rows, path, row_group_size=batch)

        def bare() -> None:
            with torch.inference_mode():
                for start in range(0, len(mel_BFT), 4):
                    encoder(mel_BFT[start : start + 4])

        features(encode, file)
        cached, uncached = FeatureData([file]), EncodingData([file], again, batch)
        fitter = partial(make_fitter, model_folder, batch, device)
        subjects = {
            "cached": epochs(fitter(Fitter, cached)),
            "uncached": epochs(fitter(Fitter, uncached)),
            "transformers": epochs(fitter(StockFitter, cached)),
            "features": partial(features, encode, again_file),
            "features-base-style": partial(features, styled, again_file),
            "encoder": bare,
        }
        seconds = measure(subjects, rounds=rounds)
    rows = [
        row("lora", seconds, name, against, len(clips), device, cached=name != "uncached")
        for name, against in (("cached", "uncached"), ("uncached", None), ("transformers", None))
    ]
    rows[0]["ratio_transformers"] = ratio(seconds["cached"], seconds["transformers"])
    rows += [
        row("features", seconds, name, "encoder", len(clips), device, cached=False)
        for name in ("features", "features-base-style")
    ]
    notes = [
        "float32, rank 32, q and v. ratio: time of the row over that of `against`; lora cached "
        "over uncached, the features stage (FLAC to Parquet) over the bare encoder, with labels as "
        "the texts are written and in the base's style.",
        "transformers: the same steps through its own forward pass, features cached.",
    ]
    publish("train", rows, notes)


def speech_table(clips: Sequence[np.ndarray], texts: Sequence[str]) -> pa.Table:
    """Clips as the speech stage leaves them."""
    rows = [
        {
            "id": f"clip-{i:05d}",
            "domain": "bench",
            "text": text,
            "split": "train",
            "audio": to_flac(clip),
            "sample_rate_hz": SAMPLE_RATE,
            "num_samples": len(clip),
            "engine": "recorded",
            "voice": "unknown",
        }
        for i, (clip, text) in enumerate(zip(clips, texts, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SPEECH)


def make_fitter(
    model_folder: Path, batch: int, device: str, kind: type[Fitter], data: FeatureData
) -> Fitter:
    """A fitter of an adapter of the paper's form."""
    recipe = Train(learning_rate=1e-5, batch_size=batch, epochs=1000)
    model: Any = make_peft_model(load_base(model_folder), Lora(), seed=0)
    return kind(model.base_model.model, data, recipe, seed=0, name="bench", device=device)


def epochs(fitter: Fitter) -> Callable[[], object]:
    """Trains one epoch a call."""
    return lambda: fitter.run_epoch(fitter.epoch)


def row(
    method: str,
    seconds: dict[str, list[float]],
    name: str,
    against: str | None,
    count: int,
    device: str,
    *,
    cached: bool,
) -> dict[str, Any]:
    """Figures of one subject."""
    own = seconds[name]
    return {
        "what": name,
        "method": method,
        "cached": cached,
        "device": device,
        "samples_per_s": count / statistics.median(own),
        "against": against,
        "ratio": None if against is None else ratio(own, seconds[against]),
        "spread": spread(own),
    }
