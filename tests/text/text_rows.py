"""A row that the tests of prompts and parsers share."""

from schemas.text import INSTRUCTIONS

PROMPT = {
    "id": "0123456789abcdef",
    "domain": "music",
    "use_case": "question generation in English",
    "skills": ["English singer", "English album name"],
    "persona": "teenager",
    "instruction": "Generate questions about music that one would ask a voice assistant.",
    "keywords": ["Adele", "debut album", "concert", "streaming"],
    "entities": [],
}
INSTRUCTION = {name: PROMPT[name] for name in INSTRUCTIONS.names}
