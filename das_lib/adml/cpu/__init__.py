"""Float32 kernels for CPUs, where a general library's are made for other sizes.

`fused` says whether they can run; `products` and `peaks` are what they do, `tile` and `vectors` the
innermost loops, `openmp` the threads; `amx` is what Intel's matrix unit multiplies. Numba compiles
them for the machine at hand.
"""
