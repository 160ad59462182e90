"""One-off commands: checkpoints that ship, TF1 import, ONNX graphs, weights of others, segmentation networks, loss plots."""
