"""Networks in forms that run without PyTorch: `network` writes ONNX, `runner` runs it with ONNX Runtime."""
