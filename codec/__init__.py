"""The codec: an image becomes bytes, and bytes become an image. Nothing here imports TensorFlow or Keras.

from codec import Codec, read_image, save_picture

codec = Codec.load("checkpoints/photo_c8")
data = codec.encode(read_image("photo.png"))  # the bytes of a .gc file
save_picture(codec.decode(data), "back.png")
"""

from codec.codec import Codec
from codec.pictures import read_image, save_picture

__all__ = ["Codec", "read_image", "save_picture"]
