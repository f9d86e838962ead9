"""The number type of matrix products on each device; GPUs are simulated by patching torch."""

from pathlib import Path

import pytest
import torch

from raydistill.teachers.transformer import device
from raydistill.teachers.transformer.device import has_bfloat16, student_dtype, teacher_dtype


def gpu(monkeypatch: pytest.MonkeyPatch, *, emulates: bool, has: bool) -> None:
    """A GPU whose bfloat16 is real (`has`) or made of float32 (`emulates`)."""

    def is_supported(including_emulation: bool = True) -> bool:
        return has or (emulates and including_emulation)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)


@pytest.mark.parametrize(
    ("emulates", "has", "teacher", "student"),
    [
        (True, True, torch.bfloat16, torch.bfloat16),  # A100, H100
        (True, False, torch.float16, torch.float32),  # T4, V100
        (False, False, torch.float16, torch.float32),
    ],
)
def test_auto_counts_no_emulation(
    monkeypatch: pytest.MonkeyPatch,
    emulates: bool,
    has: bool,
    teacher: torch.dtype,
    student: torch.dtype,
) -> None:
    gpu(monkeypatch, emulates=emulates, has=has)
    assert has_bfloat16("cuda") == has
    assert teacher_dtype("auto", device="cuda") == teacher
    assert student_dtype("auto", device="cuda") == student


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (False, False, torch.float32),
    ],
)
def test_auto_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert teacher_dtype("auto", device="cpu") == expected
    assert student_dtype("auto", device="cpu") == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_given_type_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gpu(monkeypatch, emulates=True, has=False)
    for where in ("cpu", "cuda"):
        assert teacher_dtype(name, device=where) == getattr(torch, name)
        assert device.dtype_name(teacher_dtype(name, device=where)) == name


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    device.device_name.cache_clear()
    assert device.device_name("cuda") == "Tesla T4"
    device.device_name.cache_clear()
    assert device.device_name("cpu")
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9R14: Zen 4\n\nprocessor\t: 1\n")
    assert device._cpu_name(info) == "AMD EPYC 9R14: Zen 4"
    info.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")  # ARM
    assert device._cpu_name(info) == device._cpu_name(tmp_path / "none") == ""


H100 = {"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3", "dtype": "bfloat16"}
T4 = {"device": "cuda", "device_name": "Tesla T4", "dtype": "float16"}
CPU = {"device": "cpu", "device_name": "AMD EPYC 9R14", "dtype": "bfloat16"}


def test_devices_of_several_workers() -> None:
    assert device.merge_uses([H100, H100]) == H100
    assert device.merge_uses([]) == {}
    mixed = device.merge_uses([T4, H100, T4])
    assert mixed == {
        "device": "cuda",
        "device_name": "NVIDIA H100 80GB HBM3 + Tesla T4",
        "dtype": "bfloat16 + float16",
    }
    assert device.merge_uses([CPU, H100])["dtype"] == "bfloat16"
    assert device.use_text(H100) == "NVIDIA H100 80GB HBM3, bfloat16"
    assert device.use_text(CPU) == "cpu (AMD EPYC 9R14), bfloat16"
    assert device.use_text(mixed) == "NVIDIA H100 80GB HBM3 + Tesla T4, bfloat16 + float16"


def test_causes_of_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in device.why_no_gpu()
    monkeypatch.setattr(torch.version, "cuda", "12.8")

    def init() -> None:
        raise RuntimeError("The NVIDIA driver is too old (found 11040).\nUpdate it")

    monkeypatch.setattr(torch.cuda, "init", init)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        why = device.why_no_gpu()
        assert f"CUDA_VISIBLE_DEVICES = {hidden!r} hides every GPU" in why
        assert "built without" not in why
        assert why.endswith("; torch's error: The NVIDIA driver is too old (found 11040).")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "hides" not in device.why_no_gpu()


def test_attention_of_cudnn_is_off_on_gpus() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        device.set_up_attention("cpu")
        assert torch.backends.cuda.cudnn_sdp_enabled()
        device.set_up_attention("cuda")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
