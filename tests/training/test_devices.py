"""Which device and precision training takes, and what is said about it."""

import pytest
import tensorflow as tf

from training import devices


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])


@pytest.fixture
def gpu(monkeypatch):
    """A GPU whose details the test chooses."""
    details: dict = {"device_name": "NVIDIA Test"}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    return details


@pytest.mark.parametrize(("flags", "expected"), [({"fpu", "avx2"}, "float32"), ({"fpu", "amx_bf16"}, "bfloat16")])
def test_auto_precision_follows_the_processor(flags, expected, no_gpu, monkeypatch):
    monkeypatch.setattr(devices, "processor_flags", lambda: flags)
    assert devices.training_precision("auto") == expected
    assert devices.training_precision("float16") == "float16"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_precision_follows_the_gpu(capability, expected, gpu):
    gpu["compute_capability"] = capability
    assert devices.training_precision("auto") == expected


def test_slow_bfloat16_is_one_warning(no_gpu, monkeypatch):
    monkeypatch.setattr(devices, "processor_flags", lambda: {"avx2"})
    assert [line for line in devices.warnings("bfloat16") if "mixed_precision" in line]
    assert not [line for line in devices.warnings("float32") if "mixed_precision" in line]


def test_the_device_is_described_and_a_missing_gpu_is_said(no_gpu):
    assert "no GPU found" in devices.describe()


def test_a_gpu_is_named(gpu):
    assert devices.describe() == "1 GPU (NVIDIA Test)"
