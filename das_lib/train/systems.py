"""Names of what is trained and measured: ``base``, ``das``, and ``<method>:<domain or multi>``."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

LORA, ENCODER_DECODER = "lora", "ft-encoder-decoder"
BASE, DAS = "base", "das"
MULTI = "multi"
"""In the place of a domain: learnt from all of them, every batch drawn equally (FT-Multi)."""


def system_name(method: str, learnt_from: str) -> str:
    """What reports call the result, such as ``lora:music`` or ``ft-decoder:multi``."""
    return f"{method}:{learnt_from}"


def split_system(system: str) -> tuple[str, str]:
    """Method and domain (or ``multi``) of a system's name."""
    method, _, learnt_from = system.partition(":")
    return method, learnt_from


def baseline_systems(methods: Sequence[str], domains: Sequence[str]) -> list[str]:
    """The systems that ``baselines.methods`` asks for, in the paper's order."""
    return [
        system_name(method.removesuffix(f"-{MULTI}"), learnt)
        for method in methods
        for learnt in ([MULTI] if method.endswith(f"-{MULTI}") else domains)
    ]


def at_tau(tau: float) -> str:
    """The system that decodes with all adapters and this margin."""
    return f"{DAS}@{tau:g}"


def result_folder(system: str) -> str:
    """Name of the folder of weights: a PEFT ``adapter``, or a whole ``model``."""
    return "adapter" if split_system(system)[0] == LORA else "model"


@dataclass(frozen=True, slots=True)
class Assembly:
    """Models that hear with one encoder and transcribe together, and the systems they make up."""

    model: str | None
    """Folder of the model, local or s3://; None: the configured base."""
    adapters: Mapping[str, str]
    """Folders of the adapters on it, by branch."""
    systems: Mapping[str, int | float | None]
    """How each system decodes: a branch (int; 0: the model itself), or all of them (ADML) with a
    margin (float) or as configured (None)."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Folders of what decodes the same encoder's output, by system: another decoder, or a PEFT
    adapter that is none of the branches."""

    def only(self, systems: Collection[str]) -> "Assembly":
        """The same models for these systems."""
        return replace(
            self,
            systems={s: how for s, how in self.systems.items() if s in systems},
            beside={s: folder for s, folder in self.beside.items() if s in systems},
        )


def assemblies(
    adapters: Mapping[str, str], baselines: Mapping[str, str], taus: Sequence[float] = ()
) -> list[Assembly]:
    """What is in memory together: all that hears with the base's encoder, then each other model.

    Args:
        adapters: Folder by domain.
        baselines: Folder of a PEFT adapter or a model by system.
        taus: Margins to try, beside the configured one.
    """
    systems: dict[str, int | float | None] = {BASE: 0}
    systems |= {system_name(LORA, domain): i for i, domain in enumerate(adapters, start=1)}
    systems |= {DAS: None, **{at_tau(tau): float(tau) for tau in taus}}
    methods = {system: split_system(system)[0] for system in baselines}
    beside = {s: folder for s, folder in baselines.items() if methods[s] != ENCODER_DECODER}
    systems |= {system: int(methods[system] == LORA) for system in beside}
    return [
        Assembly(None, adapters, systems, beside),
        *(Assembly(baselines[s], {}, {s: 0}) for s in baselines if s not in beside),
    ]
