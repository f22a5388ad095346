"""The configuration of a run: one YAML file, one typed frozen tree."""

from das_lib.config.load import json_schema, load_config, parse_config, to_yaml
from das_lib.config.tree import Config, Domain, Llm, Lora, Seed, TestSet, Train, Tts

__all__ = [
    "Config",
    "Domain",
    "Llm",
    "Lora",
    "Seed",
    "TestSet",
    "Train",
    "Tts",
    "json_schema",
    "load_config",
    "parse_config",
    "to_yaml",
]
