"""Frozen-encoder features of training speech, and the fitting of decoder-only adapters on them."""
