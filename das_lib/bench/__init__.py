"""Benchmarks: ratios measured side by side in one run; `das bench`, or `python -m das_lib.bench`.

They need torch, transformers, peft and this package alone, so that they run on a bare GPU machine.
"""
