"""The engine's form for a GPU: passes recorded once and replayed, as few kernels as can be.

Reading order: `replay` (the loop), `branches` (the decoder), `record` (CUDA graphs), `mel`
(spectrograms), `fused` (where Triton's kernels run), `kernels` and `products` (what they do).
"""
