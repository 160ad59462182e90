"""The knobs of the conditional GAN, where they differ from config.py's defaults."""

KNOBS = {
    "use_conditional_GAN": True,
    "channel_bottleneck": 16,
    "sample_noise": False,
}
