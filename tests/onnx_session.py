"""A session of ONNX Runtime as the tests need it."""


def session(model):
    """On one thread, of a path or a ModelProto."""
    import onnx  # not for tests that are run without it, under sanitizers
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # a warning that training_mode can be overridden
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
