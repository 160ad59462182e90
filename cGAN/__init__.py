"""The conditional GAN: the command that trains it, and what guides compress.py."""  # noqa: N999
