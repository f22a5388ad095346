"""Whisper's log-mel spectrogram on the device, for GPUs that would wait for the host's.

The numbers of `WhisperFeatureExtractor` up to rounding, without its way to the device and back:
clips are sent at their own length and padded there.

Shape suffixes: B utterances, L samples, F mel bins, T mel frames (100 a second).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.gpu.record import Recorded


class LogMel:
    """The spectrogram of clips padded to the extractor's window."""

    def __init__(self, extractor: Any, device: torch.device) -> None:
        self._n_fft, self._hop = extractor.n_fft, extractor.hop_length
        self._samples: int = extractor.n_samples
        self._window = torch.hann_window(self._n_fft, device=device)
        self._filters_FK = torch.from_numpy(extractor.mel_filters.T).to(device, torch.float32)
        self._device = device
        self._recorded = Recorded(self._compute, device)

    @torch.inference_mode()
    def __call__(self, audio: Sequence[np.ndarray]) -> torch.Tensor:
        """Of 16 kHz clips, none longer than the window. [B, F, T]."""
        longest = max(len(clip) for clip in audio)
        on_host = torch.zeros(len(audio), longest, pin_memory=self._device.type == "cuda")
        for row, clip in zip(on_host.numpy(), audio, strict=True):
            row[: len(clip)] = clip
        return self._recorded(F.pad(on_host.to(self._device), (0, self._samples - longest)))

    def _compute(self, audio_BL: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            audio_BL, self._n_fft, self._hop, window=self._window, return_complex=True
        )
        power_BKT = spectrum[..., :-1].abs().square()
        log_BFT = (self._filters_FK @ power_BKT).clamp_min(1e-10).log10()
        floor_B11 = log_BFT.amax((1, 2), keepdim=True) - 8
        return (log_BFT.maximum(floor_B11) + 4) / 4
