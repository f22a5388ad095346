"""Text stage: seed instructions -> tailored instructions -> replies -> filtered texts."""
