"""A learned image codec for very small files: an image becomes the bytes of a .gc file, and these become an image.

from gcodec import Codec, read_image, save_picture

codec = Codec.load("photo_c8")  # a model that ships, or a checkpoint's folder
data = codec.encode(read_image("photo.png"))  # the bytes of a .gc file
save_picture(codec.decode(data), "back.png")

With this import, Pillow opens and saves .gc files, too; see pillow_plugin.py. The package imports nothing outside itself but
its dependencies: no TensorFlow, no Keras.
"""

from gcodec import pillow_plugin
from gcodec.codec import Codec
from gcodec.errors import UserError
from gcodec.labels import LabelMap
from gcodec.pictures import read_image, save_picture

__version__ = "0.4"
__all__ = ["Codec", "LabelMap", "UserError", "read_image", "save_picture"]

pillow_plugin.register()
