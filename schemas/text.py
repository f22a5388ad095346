"""Datasets of the text stage."""

import pyarrow as pa

from schemas.fields import field, schema

INSTRUCTIONS = schema(
    "instructions",
    1,
    [
        field("id", pa.string(), "Hash of the domain, the seed and the number of the variant."),
        field("domain", pa.string(), "Domain that the instruction is for."),
        field("use_case", pa.string(), "Use case of the seed instruction."),
        field("skills", pa.list_(pa.string()), "Skills of the seed instruction."),
        field("persona", pa.string(), "Who speaks."),
        field(
            "keywords",
            pa.list_(pa.string()),
            "Entities of the catalogues, then metadata that the LLM made from the seed.",
        ),
        field("instruction", pa.string(), "Tailored instruction, sent to the LLM as it is."),
    ],
)

IMPROVED = schema(
    "improved",
    1,
    [
        *INSTRUCTIONS,
        field("rubric", pa.string(), "What good texts meet, as the LLM says."),
        field("action", pa.string(), "What brings the instruction nearer to it, as the LLM says."),
    ],
)

REPLIES = schema(
    "replies",
    1,
    [
        field("id", pa.string(), "Id of the instruction: one reply each."),
        field("domain", pa.string(), "Domain of the instruction."),
        field("instruction_id", pa.string(), "Row of the instructions dataset."),
        field("reply", pa.string(), "The LLM's reply, unchanged."),
    ],
)

JUDGEMENTS = schema(
    "judgements",
    1,
    [
        field("id", pa.string(), "Id of the instruction that both models replied to."),
        field("domain", pa.string(), "Domain of the instruction."),
        field("strong_score", pa.float64(), "Score of the LLM's own reply.", min=0, max=10),
        field("target_score", pa.float64(), "Score of the target model's reply.", min=0, max=10),
    ],
)

TEXTS = schema(
    "texts",
    1,
    [
        field("id", pa.string(), "Hash of the domain and the text."),
        field("domain", pa.string(), "Domain that the text is for."),
        field("text", pa.string(), "What is to be spoken, in written form."),
        field("split", pa.string(), "Use of the text.", values=("train", "test")),
        field("source", pa.string(), "Reply's id, or file and line of one's own text."),
    ],
)
