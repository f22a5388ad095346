"""`das adapters`: what was trained, what an adapter changes, and one of them as a whole model."""
