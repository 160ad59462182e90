"""The codec: an image becomes bytes, and bytes become an image. Imports neither TensorFlow nor Keras."""
