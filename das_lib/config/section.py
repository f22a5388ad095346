"""What every section of the configuration is made of."""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=40)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"the range {list(span)} falls; give the lower bound first")
    return span


Span = Annotated[tuple[float, float], AfterValidator(_rising)]
Bound = Annotated[float, Field(ge=0.1, le=10)]
Range = Annotated[tuple[Bound, Bound], AfterValidator(_rising)]


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Pool(Section):
    """How many workers of a stage run side by side, and what each of them takes."""

    actors: Annotated[int, Field(ge=1)] = 1
    """Workers of this stage."""
    num_cpus: Annotated[float, Field(gt=0)] = 1
    """Logical CPUs of each worker; rounded up, also its number of compute threads."""
    num_gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of each worker; a fraction shares one GPU."""

    @property
    def threads(self) -> int:
        """Compute threads of each worker."""
        return math.ceil(self.num_cpus)
