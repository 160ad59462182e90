"""The conditional GAN: label maps, selective compression, and the command that trains it."""  # noqa: N999
