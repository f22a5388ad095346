"""DAS as a library: text, speech, adapters, ADML decoding and evaluation. Imports no Ray."""
