"""What this machine computes on, and in which precision it does so fast."""

import os
from pathlib import Path

FAST_BFLOAT16 = ("amx_bf16", "avx512_bf16")  # instruction sets, by their names in /proc/cpuinfo
AMPERE = (8, 0)  # the first compute capability of NVIDIA's with bfloat16


def training_precision(wanted: str) -> str:
    """Return the precision that the knob `mixed_precision` means here: `auto` is bfloat16 where it is fast, else float32."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if computes_bfloat16_fast() else "float32"


def computes_bfloat16_fast() -> bool:
    """Return whether the first GPU, or without one the processor, computes bfloat16 faster than float32."""
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= AMPERE
    return not processor_flags().isdisjoint(FAST_BFLOAT16)


def processor_flags() -> set[str]:
    """Return the processor's instruction sets, by Linux' names; none where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def describe() -> str:
    """Return a phrase for what TensorFlow computes on: "1 GPU (NVIDIA H100)", or "CPU, 2 threads, no GPU found"."""
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "of an unknown kind")
        return f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} ({name})"
    return f"CPU, {os.cpu_count()} threads, no GPU found"


def warnings(precision: str) -> list[str]:
    """Return what is likely a mistake in how training is about to compute, a line each."""
    import tensorflow as tf

    found = []
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and Path("/dev/nvidia0").exists():
        found.append("this machine has an NVIDIA GPU that TensorFlow does not find; pip install 'tensorflow[and-cuda]'")
    if precision == "bfloat16" and not computes_bfloat16_fast():
        found.append("knob mixed_precision: bfloat16 is slow on this device; float32 or auto is faster")
    return found
