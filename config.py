"""The knobs, one a line, each with its unit and when to change it.

train.py reads `config_train`, compress.py and decompress.py read `config_test`, and all of them read `directories`. Change a
default here, or change the values of one run on the command line: `-c presets/photo_structure.toml` reads a file with any of
the knobs, and `-k width=192 -k crop_size=128` sets single ones. Every checkpoint has its training knobs as JSON, and the
networks are rebuilt from that file, never from this one.
"""

import math
from dataclasses import dataclass

import gcodec
from gcodec.errors import UserError
from gcodec.knobs import Knobs, ModelKnobs, knob

VERSION = gcodec.__version__  # of this project; what --version prints
__all__ = ["VERSION", "UserError", "config_base", "config_test", "config_train", "directories"]


@dataclass(frozen=True)
class config_base(Knobs):
    """The knobs that training and testing share."""

    # Largest image that is read or decoded. The models that ship take up to 170 bytes of memory for each pixel on ONNX Runtime,
    # and up to 570 on TensorFlow. An image that takes more memory than is free is refused; see gcodec/memory.py.
    max_pixels: int = knob(25_000_000, low=1)


# fmt: off
@dataclass(frozen=True)
class config_train(config_base, ModelKnobs):
    """The knobs of a training run. Where the paper gives a value, it is the default. W, L and C are the paper's letters.

    Those that the codec must know, too, are ModelKnobs in gcodec/knobs.py. A test holds that both say the same of them.
    """

    # Networks
    encoder: str = knob("encoder", role="network")            # any static method of Network with the same signature
    generator: str = knob("generator", role="network")        # likewise
    # patch_discriminator, dcgan_discriminator or wgan_critic is used at each scale. projected_discriminator judges patches of
    # the image at full size, and AlexNet's features of it.
    discriminator: str = knob("patch_discriminator", role="state")
    width: int = knob(960, low=16, role="network")            # W, channels at 1/16 scale, a multiple of 16; 192 suits a CPU
    n_residual_blocks: int = knob(9, low=0, role="network")   # in the generator; 8 suit a CPU at W=192
    n_encoder_blocks: int = knob(1, low=0, role="network")    # residual blocks of subpixel_encoder
    channel_bottleneck: int = knob(8, low=1, high=255, role="network")  # C, the rate: at most C*log2(L)/256 bits per pixel
    # The quantizer's centers, ascending; L is their number.
    centers: tuple = knob((-2.0, -1.0, 0.0, 1.0, 2.0), low=-100, high=100, role="network")
    learn_centers: bool = knob(False, role="state")           # train the centers too
    quantizer_distance: str = knob("squared", allowed=("squared", "absolute"))  # absolute is the seed's; see Quantizer
    quantizer_temperature: float = knob(1.0, low=1e-3)        # of the soft assignment; lower: harder, noisier gradients
    bottleneck_norm: bool = knob(False, role="network")       # the seed's norm + ReLU on w; only for its checkpoints
    normalization: str = knob("instance", allowed=("instance", "channel"), role="network")  # channel: crops and photos agree
    # The 3x3 transposed convolution is the paper's. 4x4 transposed, nearest and bilinear leave no checkerboard.
    upsampling: str = knob("transpose", allowed=("transpose", "transpose4", "nearest", "bilinear"), role="network")
    # Share of the training images that keep only the first K < C channels; compress.py --channels K then does less harm.
    channel_dropout: float = knob(0.0, low=0, high=1)
    sample_noise: bool = knob(False, role="network")          # concatenate a noise map to w_hat
    # dcgan: a network makes the map from one v for the image, as the seed does. map: C values at each position, no weights.
    # layers: each block of the generator gets a map, and learns how much of it to add, for finer texture.
    noise_mode: str = knob("dcgan", allowed=("dcgan", "map", "layers"), role="network")
    # layers: blocks larger than this multiple of z's size get no noise.
    noise_finest: int = knob(16, allowed=(1, 2, 4, 8, 16), role="network")
    noise_dim: int = knob(128, low=1, role="network")         # dcgan: length of v ~ N(0, I)
    # dcgan: batch is the seed's, and mutes noise at batch size 1.
    noise_norm: str = knob("channel", allowed=("channel", "batch"), role="network")
    multiscale: bool = knob(True, role="state")               # D judges at several scales, or only at full size
    n_scales: int = knob(3, low=1, high=5, role="state")      # of the multiscale discriminator; 2 for crops under 128 px
    spectral_norm: bool = knob(False, role="state")           # bound the norm of D's kernels by 1, instead of D's instance norm
    discriminator_width: int = knob(64, low=1, role="state")  # channels after its first layer; half suits a CPU

    # Semantic label maps
    use_conditional_GAN: bool = knob(False, role="network")  # D sees image and label map; needs a table with semantic_map_paths
    n_classes: int = knob(12, low=2, high=255, role="network")  # with void, which is the last and stands for what is unknown
    classes: str = knob("", role="network")  # "Sky 128 128 128, ...": names and colours; see train.py --classes
    use_instances: bool = knob(False, role="network")         # boundaries of instances too; needs a column instance_map_paths
    # The form in which the file holds the map, and G sees it: the map itself, a second encoder's output, or not at all.
    semantic_code: str = knob("lossless", allowed=("lossless", "learned", "none"), role="network")
    # lossless: side in pixels of one position of the map in the file.
    semantic_scale: int = knob(8, allowed=(4, 8, 16), role="network")
    selective: bool = knob(False, role="network")             # train to synthesize parts of the picture from the map alone
    # What a training image preserves: three of four instances (or regions of a class, without use_instances), half of its
    # classes, or a box.
    selective_regions: str = knob("instances", allowed=("instances", "classes", "boxes"))

    # Losses
    lambda_X: float = knob(12.0, low=0)                       # weight of the distortion, MSE in [-1, 1]; paper: 10
    lambda_structure: float = knob(0.0, low=0)                # weight of the MSE at a quarter of the size; beside a GAN: 48
    lambda_range: float = knob(0.2, low=0)                    # weight of the penalty on w outside the centers' range; paper: 0
    # Weight of the bits per pixel; paper: 0. Files get smaller at 0.3 to 6 with rate_model=context, 0.1 to 0.5 with static.
    lambda_rate: float = knob(0.0, low=0)
    # Bits per pixel to train for: lambda_rate is then only where its weight starts, and is steered until the bits that the
    # context model counts settle here. Files of whole photos take about 0.83 of what is counted on crops. 0: off.
    target_bpp: float = knob(0.0, low=0, role="state")
    # What counts those bits: a table of frequencies for each channel, or a context model that learns along.
    rate_model: str = knob("static", allowed=("static", "context"), role="state")
    lambda_adversarial: float = knob(1.0, low=0)              # weight of the generator's adversarial loss; lower: smoother
    # Least squares, sigmoid cross-entropy, hinge, or Wasserstein: wgan by weight_clipping or spectral_norm, wgan_gp by a
    # gradient penalty.
    gan_loss: str = knob("lsgan", allowed=("lsgan", "vanilla", "hinge", "wgan", "wgan_gp"))
    use_vanilla_GAN: bool = knob(False)                       # the seed's name for gan_loss=vanilla
    lambda_gp: float = knob(10.0, low=0)                      # wgan_gp: weight of the gradient penalty
    n_critic_iterations: int = knob(1, low=1)                 # steps of D for each step of G, in the GAN stage; 5 suits wgan
    weight_clipping: bool = knob(False)                       # wgan: D's weights stay in [-max_c, max_c]
    max_c: float = knob(0.01, low=1e-6)
    use_feature_matching_loss: bool = knob(True)              # match the discriminator's intermediate maps
    lambda_feature_matching: float = knob(10.0, low=0)        # its weight
    lambda_lpips: float = knob(0.0, low=0)                    # weight of LPIPS by AlexNet; 0.5 to 1 suit lambda_X=12
    # AlexNet, for LPIPS and the projected discriminator, sees a random window that is enlarged by 1 to this.
    perceptual_zoom: float = knob(1.0, low=1, high=4)
    lambda_lpips_vgg: float = knob(0.0, low=0)                # weight of LPIPS by VGG16, of a random quarter of each image
    use_vgg_loss: bool = knob(False)                          # match VGG19's features too, in all stages
    lambda_vgg: float = knob(0.1, low=0)                      # its weight; corresponds to about 10 in pix2pixHD
    vgg_weights: str = knob("imagenet")                       # Keras' own (its cache, or a download), or a path to that file

    # Stages: distortion alone, then the discriminator alone, then the GAN
    distortion_steps: int = knob(0, low=0)                    # E and G without a discriminator; some thousands steady the GAN
    generator_steps: int = knob(0, low=0)                     # the first of these train G alone, for a new G after --transfer
    discriminator_warmup_steps: int = knob(0, low=0)          # D alone; 300 avoid the drop when a new D is switched on
    entropy_steps: int = knob(6000, low=0)                    # fit the context model after training; 0: static tables
    freeze_encoder: bool = knob(False)                        # in the GAN stage: files stay as they are, only decoding changes

    # Optimization
    optimizer: str = knob("adam", allowed=("adam", "momentum", "rmsprop", "sgd"), role="state")  # -opt on the command line
    distortion_learning_rate: float = knob(2e-4, low=0)       # of E and G in the distortion stage
    G_learning_rate: float = knob(2e-4, low=0)                # of E and G in the GAN stage
    D_learning_rate: float = knob(2e-4, low=0)                # of the discriminator
    lr_decay_rate: float = knob(1.0, low=0, high=1)           # learning rates fall by this factor ...
    lr_decay_steps: int = knob(10_000, low=1)                 # ... in so many steps, exponentially, anew in each stage
    beta_1: float = knob(0.5, low=0, high=0.999)              # Adam
    momentum: float = knob(0.9, low=0, high=0.999, role="state")  # -opt momentum
    weight_decay: float = knob(0.0, low=0)                    # decoupled, per step, times the learning rate
    ema_decay: float = knob(0.999, low=0, high=0.999999)      # of the weights that compress.py uses
    batch_size: int = knob(1, low=1)  # images a step, of all devices; over 1 needs equal sizes: set crop_size
    # Save memory: compute E's activations again for the gradient, and return freed memory. Turn this off for a small network.
    recompute: bool = knob(True)
    # How precisely the networks compute in training. auto is bfloat16 if the processor or the GPU computes it fast, and float32
    # otherwise. float16, with loss scaling, suits any GPU; bfloat16 suits a recent one, or a processor with AMX.
    mixed_precision: str = knob("float32", allowed=("auto", "float32", "float16", "bfloat16"), role="state")
    jit_compile: bool = knob(False)                           # compile the step with XLA: pays on a GPU, not on a CPU
    num_epochs: int = knob(50, low=1)                         # passes over the path table; --epochs and --steps override it
    seed: int = knob(0, low=0, high=2**31)                    # of weights, shuffling, crops and noise

    # Data
    crop_size: int = knob(0, low=0)  # side of random square crops in px, a multiple of 16; 0: whole images
    random_flip: bool = knob(False)                           # left-right
    random_scale: float = knob(1.0, low=0.1, high=1)  # before each crop, scale the image by a random factor from this to 1

    # Monitoring
    diagnostic_steps: int = knob(128, low=1)                  # steps between summaries and sample pictures
    checkpoint_epochs: int = knob(10, low=1)                  # epochs between checkpoints
    keep_checkpoints: int = knob(2, low=1)                    # older ones are deleted, except the distortion stage's last
    n_sample_images: int = knob(4, low=1)                     # held-out images in the sample picture

    @property
    def max_bpp(self) -> float:
        """The most bits per pixel that the symbols can take, C * log2(L) / 256."""
        return self.channel_bottleneck * math.log2(self.L) / 256

    @property
    def adversarial_loss(self) -> str:
        """The loss of losses.py that gan_loss and use_vanilla_GAN mean."""
        return "vanilla" if self.use_vanilla_GAN else "wgan" if self.gan_loss == "wgan_gp" else self.gan_loss

    @property
    def uses_alexnet(self) -> bool:
        """Whether a loss looks at AlexNet's features of the images."""
        return self.lambda_lpips > 0 or self.is_projected

    @property
    def is_projected(self) -> bool:
        """Whether D looks at AlexNet's features of the images."""
        return self.discriminator == "projected_discriminator"

    @property
    def z_parts(self) -> dict[str, int]:
        """Number of channels of each part of z, in their order, as the generator's first convolution sees them."""
        noise = self.noise_channels if self.noise_mode != "layers" else 0  # of `layers`, each block gets its own
        return {"w_hat": self.channel_bottleneck, "noise": noise, "code": self.code_channels, "mask": int(self.selective)}

    def __post_init__(self) -> None:
        super().__post_init__()
        batch_norm = self.discriminator == "dcgan_discriminator"
        clipped, penalized = self.weight_clipping, self.gan_loss == "wgan_gp"
        self._check_rules({
            "use_vanilla_GAN": (not self.use_vanilla_GAN or self.gan_loss in ("lsgan", "vanilla"),
                                f"means gan_loss=vanilla, and gan_loss is {self.gan_loss}"),
            "gan_loss": (self.gan_loss != "wgan" or clipped or self.spectral_norm,
                         "needs weight_clipping or spectral_norm: an unbounded critic has no loss to reach"),
            "weight_clipping": (not clipped or not (penalized or self.spectral_norm),
                                "does not go with wgan_gp or spectral_norm, which bound D in another way"),
            "spectral_norm": (not self.spectral_norm or not batch_norm, "is undone by the batch norm of dcgan_discriminator"),
            "discriminator": (not penalized or not (batch_norm or self.is_projected),
                              "does not go with wgan_gp, which penalizes the gradient of one image by the image alone"),
            "lambda_lpips": (not self.uses_alexnet or not 0 < self.crop_size < 48, "needs crops of at least 48 px"),
            "lambda_lpips_vgg": (not self.lambda_lpips_vgg or not 0 < self.crop_size < 48, "needs crops of at least 48 px"),
            "crop_size": (self.crop_size % 16 == 0 and self.crop_size != 16, "is not 0 or a multiple of 16 from 32 up"),
            "target_bpp": (self.target_bpp <= self.max_bpp,
                           f"is more than {self.channel_bottleneck} channels of {self.L} values can take, {self.max_bpp:.4f}"),
            "rate_model": (not self.target_bpp or self.rate_model == "context",
                           "does not count the bits of the files, which target_bpp is about; set rate_model=context"),
        })


@dataclass(frozen=True)
class config_test(config_base):
    """The knobs of compressing and decompressing. Those of the networks come from the checkpoint."""

    channels: int = knob(0, low=0, high=255)            # compress.py: send only the first K channels of w_hat; 0: all
    # What runs the networks. auto: ONNX Runtime if it is installed and the checkpoint has graphs for it, else TensorFlow.
    runtime: str = knob("auto", allowed=("auto", "onnx", "tensorflow"))
    noise_seed: int = knob(0, low=0, high=2**32 - 1)    # mixed with the file's own; another value gives other noise


@dataclass(frozen=True)
class directories(Knobs):
    """Where things are, relative to the working directory or else to this project's folder."""

    checkpoints: str = knob("checkpoints")              # a folder for each run: checkpoints/NAME/ckpt-STEP
    default_checkpoint: str = knob("checkpoints/photo_c8")  # what compress.py uses without -r
    samples: str = knob("samples")                      # sample pictures: samples/NAME/STEP.png
    tensorboard: str = knob("tensorboard")              # logs: tensorboard --logdir tensorboard
    sample_train: str = knob("data/sample_train.h5")    # path tables of -ds sample, which ships with the project
    sample_val: str = knob("data/sample_val.h5")
    cityscapes_train: str = knob("data/cityscapes_paths_train.h5")  # made by data/make_paths.py, as all below
    cityscapes_val: str = knob("data/cityscapes_paths_val.h5")
    ADE20k_train: str = knob("data/ADE20k_paths_train.h5")
    ADE20k_val: str = knob("data/ADE20k_paths_val.h5")
    camvid_train: str = knob("data/camvid_paths_train.h5")
    camvid_val: str = knob("data/camvid_paths_val.h5")
    cityscapes_classes: str = knob("data/cityscapes_classes.csv")  # of label maps, as train.py --classes reads them
    camvid_classes: str = knob("data/camvid_classes.csv")
# fmt: on
