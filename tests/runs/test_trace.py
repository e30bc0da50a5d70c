"""What is made of a trace: against small traces made by hand, and against torch's own sums of a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from trimtab.runs.profiles import bottleneck, render_profiles
from trimtab.runs.trace import MARK, kind_of, memory_of_trace, read_trace


def op(name: str, begun: float, lasted: float, cat: str = "cpu_op", tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": begun, "dur": lasted, "tid": tid}


def mark(part: str, begun: float, lasted: float, cat: str = "user_annotation") -> dict[str, Any]:
    return op(MARK + part, begun, lasted, cat)


def memory(at: float, size: int, address: int, device: int = 0) -> dict[str, Any]:
    args = {"Bytes": size, "Addr": address, "Device Type": device}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": at, "tid": 1, "args": args}


def test_own_time_is_without_what_is_inside() -> None:
    events = [
        mark("forward", 0, 100),
        op("aten::linear", 10, 60),
        op("aten::addmm", 20, 40),
        op("aten::copy_", 25, 5),
        op("aten::mul", 80, 10),
        op("aten::stack", 0, 1000, tid=2),  # a thread that prepares data
        op("aten::mm", 200, 50),  # an evaluation
        mark("optimizer", 300, 10),
    ]
    found = read_trace(events)
    assert {one.name: pytest.approx(one.seconds * 1e6) for one in found.operators} == {
        "aten::addmm": 35,
        "aten::linear": 20,
        "aten::mul": 10,
        "aten::copy_": 5,
    }
    assert found.operators[0].name == "aten::addmm"
    assert found.parts == {"forward": pytest.approx(1e-4), "optimizer": pytest.approx(1e-5)}
    assert found.busy_seconds == pytest.approx(70e-6)
    assert not found.on_device


def kernel(name: str, begun: float, lasted: float, launched: float, cat: str = "kernel") -> list[dict[str, Any]]:
    """A kernel and its launch, which `launched` also numbers."""
    args = {"args": {"correlation": launched}}
    return [op(name, begun, lasted, cat) | args, op("cudaLaunchKernel", launched, 1, "cuda_runtime", tid=9) | args]


def test_on_a_device_its_own_time_counts() -> None:
    events = [
        op("aten::mm", 0, 5),
        mark("forward", 0, 10),
        mark("backward", 10, 10),
        *kernel("Memcpy HtoD (Pinned -> Device)", 15, 5, 1, "gpu_memcpy"),
        *kernel("sm90_xmma_gemm_bf16", 20, 30, 2),
        *kernel("vectorized_elementwise_kernel", 40, 20, 9.5),  # overlaps, on another stream
        *kernel("sm90_xmma_gemm_bf16", 100, 50, 12),  # by the thread of the backward pass
        *kernel("sm90_xmma_gemm_bf16", 200, 30, 150),  # an evaluation
        op("nobody_knows_who_launched_it", 300, 1, "kernel"),
    ]
    found = read_trace(events)
    assert found.on_device
    assert found.busy_seconds == pytest.approx((45 + 50 + 1) * 1e-6)
    assert found.parts == {"forward": pytest.approx(45e-6), "backward": pytest.approx(50e-6)}
    assert found.kinds == {
        "matmul": pytest.approx(80e-6),
        "elementwise": pytest.approx(21e-6),
        "copy": pytest.approx(5e-6),
    }
    assert found.calls == 5


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "matmul"),
        ("aten::addmm", "matmul"),
        ("aten::mul", "elementwise"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NTN", "matmul"),
        ("void pytorch_flash::flash_bwd_kernel<...>", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("autograd::engine::evaluate_function: AddmmBackward0", "autograd"),
        ("AddmmBackward0", "autograd"),
        ("aten::_log_softmax_backward_data", "loss"),
        ("aten::_foreach_norm", "optimizer"),
        ("triton_poi_fused_add_gelu_3", "elementwise"),
        ("triton_red_fused_native_layer_norm_1", "normalization"),
        ("triton_per_fused_sum_2", "reduction"),
        ("aten::transpose", "view"),
        ("aten::to", "copy"),
        ("aten::embedding_dense_backward", "embedding"),
        ("ncclDevKernel_AllReduce_Sum_bf16", "communication"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_peak_of_memory_by_category() -> None:
    events = [
        mark("forward", 0, 10),
        mark("backward", 10, 10),
        mark("optimizer", 20, 10),
        op("aten::mm", 0.5, 2),
        op("aten::relu", 3, 2),
        memory(1, 100, 1),
        memory(4, 50, 2),
        memory(11, 30, 3),  # a gradient: the update frees it
        memory(12, 20, 4),  # the peak: 1,000 + 200
        memory(13, -20, 4),
        memory(14, -50, 2),
        memory(15, -100, 1),
        memory(16, -7, 99),  # held before the first step, and freed after the peak
        memory(21, 40, 5),
        memory(22, -40, 5),
        memory(23, -30, 3),
        memory(5, 10**6, 6, device=1),  # another device's
    ]
    held = {"weights": 400, "gradients": 400, "optimizer": 200}
    found = memory_of_trace(events, held, device_type=0, gradients_move=False)
    assert found["peak_bytes"] == 1200
    assert found["part"] == "backward"
    assert found["categories"] == {
        "weights": 400,
        "gradients": 430,
        "optimizer": 200,
        "activations": 150,
        "other": 20,
    }
    assert found["largest"][0] == {"bytes": 100, "part": "forward", "category": "activations", "operator": "aten::mm"}
    assert [size for _, size in found["timeline"]][:4] == [1100, 1150, 1180, 1200]
    nothing = memory_of_trace([mark("forward", 0, 1)], held, device_type=0, gradients_move=False)
    assert (nothing["peak_bytes"], nothing["part"], nothing["timeline"]) == (1000, "between", [])


def test_gradients_that_move_are_counted_once() -> None:
    events = [
        mark("backward", 0, 10),
        mark("optimizer", 10, 10),
        memory(1, -400, 77),  # those of the step before
        memory(2, 450, 1),
        memory(3, 60, 2),
        memory(4, -60, 2),
    ]
    found = memory_of_trace(events, {"weights": 500, "gradients": 400}, device_type=0, gradients_move=True)
    assert found["categories"]["gradients"] == 450
    assert found["peak_bytes"] == 500 + 450 + 60


def test_a_real_trace_agrees_with_torch(tmp_path: Path) -> None:
    model, x = torch.nn.Linear(64, 64), torch.randn(32, 64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as follower:
        with record_function(f"{MARK}forward"):
            y = (model(x) ** 2).sum()
        with record_function(f"{MARK}backward"):
            y.backward()
    follower.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    ours = {one.name: one for one in read_trace(events).operators}
    theirs = {one.key: one for one in follower.key_averages() if not one.key.startswith((MARK, "["))}
    assert set(ours) == set(theirs)
    for name, one in theirs.items():
        assert ours[name].calls == one.count
        assert ours[name].seconds * 1e6 == pytest.approx(one.self_cpu_time_total, rel=0.05, abs=2.0)
    found = memory_of_trace(events, {"weights": 64 * 65 * 4}, device_type=0, gradients_move=False)
    # Of the forward pass live: the products, their squares as the sum reads them, and the sum.
    assert found["categories"]["activations"] >= 32 * 64 * 4
    assert found["peak_bytes"] >= 64 * 65 * 4 + found["categories"]["activations"]


STEP: dict[str, Any] = {
    "step_seconds": 0.1,
    "parts": {"data": 0.0, "forward": 0.03, "backward": 0.06, "optimizer": 0.005},
    "busy_seconds": 0.095,
    "kinds": {"matmul": 0.06, "elementwise": 0.03},
    "calls": 1000,
    "on_device": True,
}


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({}, "matmul-bound", "67 % of the time in which the GPU computes"),
        ({"parts": {"data": 0.011}}, "input-bound", "11 % of a step"),
        ({"busy_seconds": 0.04}, "launch-bound", "only 40 % of a step, in 1,000 kernels of 40 µs"),
        ({"parts": {"optimizer": 0.03}}, "optimizer-heavy", "the update is 30 % of a step"),
        ({"kinds": {"matmul": 0.03, "elementwise": 0.05, "copy": 0.01}}, "memory-bound", "elementwise first"),
        ({"kinds": {"matmul": 0.04, "compiled": 0.06}}, "mixed", "compiled is the most, 60 %"),
    ],
)
def test_what_steps_are_bound_by(changed: dict[str, Any], code: str, said: str) -> None:
    found = bottleneck(**(STEP | changed))
    assert found["code"] == code
    assert said in found["text"]


def test_a_run_without_profiles_says_how_to_make_one() -> None:
    assert "profile.steps=100..110" in render_profiles([], "runs/x")
