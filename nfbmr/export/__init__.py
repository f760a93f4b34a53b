"""A model leaves Python: its graph as ONNX or OpenVINO, checked against the product's own scores."""
