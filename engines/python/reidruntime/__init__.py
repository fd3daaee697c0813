"""Open an exported re-identification artifact and turn person images into embeddings.

    with open_session("model.onnx") as session:
        embeddings = session.embed(images)     # uint8 HWC arrays or paths -> (N, D) float32
"""
