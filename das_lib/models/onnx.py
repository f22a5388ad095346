"""What every ONNX session here is told."""

import onnxruntime


def thread_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session that computes in ``threads`` threads, the caller's among them.

    Without, each session takes every core, and beside others on the same machine all wait for one
    another.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return options
