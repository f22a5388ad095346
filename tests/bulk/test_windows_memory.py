"""What cutting a recording needs: memory of a few windows, and no torch."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from das_lib.bulk.vad import FRAME
from das_lib.bulk.windows import Windows, WindowSettings
from das_lib.speech.audio import SAMPLE_RATE


class LoudnessVad:
    """Hears speech where the frames are loud; blocks must be whole frames."""

    def stream(self):
        return self

    def feed(self, audio):
        return np.abs(audio[: len(audio) // FRAME * FRAME]).reshape(-1, FRAME).max(axis=1)

    def finish(self):
        return np.zeros(0, np.float32)


# An hour, whose audio alone would take 230 MB.

SECOND = np.ones(SAMPLE_RATE, np.float32)
HALF_SECONDS = (np.arange(SAMPLE_RATE) % (SAMPLE_RATE // 2) < 0.15 * SAMPLE_RATE).astype(np.float32)
LAYOUTS = {
    "speech without a pause": lambda second: 0.9,
    "silence": lambda second: 0.0,
    "a word every ten seconds": lambda second: 0.9 if second % 10 == 0 else 0.0,
    "sentences": lambda second: 0.9 if second % 9 < 7 else 0.0,
    "short words": lambda second: 0.9 * HALF_SECONDS,
}


@pytest.mark.parametrize("max_gap_s", [None, 1.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_hour_takes_the_memory_of_a_few_windows(layout, max_gap_s):
    blocks = (LAYOUTS[layout](second) * SECOND for second in range(3600))
    windows = Windows(blocks, LoudnessVad(), WindowSettings(max_gap_s=max_gap_s))
    speech = sum(float(np.mean(LAYOUTS[layout](second) > 0)) for second in range(3600))
    tracemalloc.start()
    try:
        count = sum(1 for _ in windows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert windows.num_samples == 3600 * SAMPLE_RATE
    assert windows.speech_samples >= speech * SAMPLE_RATE
    assert count >= speech / 30
    assert peak < 4.5 * 30 * SAMPLE_RATE * 4  # three inside, one handed out, and small things


def test_workers_start_without_torch():
    code = (
        "import sys; import das_lib.bulk.windows as windows; windows.Vad.from_package(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
