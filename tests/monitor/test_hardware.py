"""Readings of the machine. The host's are real; NVML is a stand-in written by hand, as no GPU is there."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from trimtab.monitor.hardware import GpuCounters, Host, NoCounters, Rapl, Sampler, open_gpu
from trimtab.runs.metrics import METRICS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def known(name: str) -> bool:
    return name in METRICS or name.replace("/gpu0/", "/<gpu>/") in METRICS


def test_the_host_is_read_as_it_is(tmp_path: Path) -> None:
    host = Host(tmp_path)
    begun, before = time.perf_counter(), time.process_time()
    while time.process_time() < before + 0.3:
        pass
    values = host.read()
    busy = 100 * (time.process_time() - before) / (time.perf_counter() - begun)
    assert all(known(name) for name in values), values
    assert values["hardware/process_memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    assert values["hardware/memory_available_bytes"] == pytest.approx(psutil.virtual_memory().available, rel=0.1)
    assert values["hardware/disk_free_bytes"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.01)
    assert values["hardware/process_cpu_percent"] == pytest.approx(busy, rel=0.2)
    assert 0 < values["hardware/cpu_percent"] <= 100
    time.sleep(0.2)
    assert host.read()["hardware/process_cpu_percent"] < 60


def test_bytes_written_are_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = Clock(), [1e6]
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: SimpleNamespace(read_bytes=0, write_bytes=written[0]))
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)  # as in a container without one
    host = Host(tmp_path, clock=clock)
    clock.now, written[0] = 104.0, 9e6
    values = host.read()
    assert values["hardware/disk_written_bytes_per_second"] == 2e6
    assert not any("network" in name for name in values)


def rapl_folder(tmp_path: Path, energy: dict[str, int]) -> Path:
    for name, label in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "name").write_text(f"{label}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")
        (tmp_path / name / "energy_uj").write_text(str(energy[name]))
    return tmp_path


def test_the_energy_of_processors_is_that_of_their_packages(tmp_path: Path) -> None:
    clock = Clock()
    start = {"intel-rapl:0": 990_000_000, "intel-rapl:0:0": 5, "intel-rapl:1": 7}
    rapl = Rapl.open(rapl_folder(tmp_path, start), clock=clock)
    assert rapl is not None
    clock.now += 2.0
    rapl_folder(tmp_path, start | {"intel-rapl:0": 10_000_000})  # the counter began anew at 1,000 J
    assert rapl.read() == {"joules": pytest.approx(20.0), "hardware/cpu_power_watts": pytest.approx(10.0)}
    assert Rapl.open(tmp_path / "nothing") is None


class NVMLError(Exception):
    pass


class Nvml:
    """What the module pynvml does with one GPU, which draws 300 W; names in `lacking` it does not have."""

    NVMLError = NVMLError
    NVML_SUCCESS = 0
    NVML_GPM_METRICS_GET_VERSION = 1

    def __init__(self, *lacking: str) -> None:
        self.lacking, self.open, self.samples = lacking, 0, 0
        self.asked: list[str] = []
        self.millijoules, self.reasons, self.milliwatts = 5_000_000, 0x4, 300_000

    def nvmlInit(self) -> None:
        if "driver" in self.lacking:
            raise NVMLError("NVML Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        if uuid != "GPU-1234":
            raise NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=7 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=93, memory=41)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 61

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return self.milliwatts

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return self.reasons

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if "energy" in self.lacking:
            raise NVMLError("Not Supported")
        return self.millijoules

    def nvmlGpmQueryDeviceSupport(self, handle: str) -> Any:
        return SimpleNamespace(isSupportedDevice="counters" not in self.lacking)

    def nvmlGpmSampleAlloc(self) -> int:
        self.samples += 1
        return self.samples

    def nvmlGpmSampleFree(self, sample: int) -> None:
        self.samples -= 1

    def nvmlGpmSampleGet(self, handle: str, sample: int) -> int:
        return sample

    def c_nvmlGpmMetricsGet_t(self) -> Any:
        return SimpleNamespace(metrics=[SimpleNamespace(metricId=0, value=0.0, nvmlReturn=0) for _ in range(9)])

    def nvmlGpmMetricsGet(self, asked: Any) -> None:
        assert (asked.sample1, asked.sample2) == (1, 2)
        for one in asked.metrics[: asked.numMetrics]:
            one.value, one.nvmlReturn = 10.0 * one.metricId, 3 if one.metricId == 5 else 0


def test_a_gpu_is_found_by_its_uuid_and_read() -> None:
    nvml: Any = Nvml()
    gpu, why = open_gpu("1234", "gpu0", nvml)
    assert gpu is not None
    assert (why, nvml.asked) == ("", ["GPU-1234"])
    nvml.millijoules += 900_000
    values = dict(gpu.read())
    assert values.pop("joules") == 900.0
    assert all(known(name) for name in values), values
    assert values == {
        "hardware/gpu0/memory_bytes": 7 * 2**30,
        "hardware/gpu0/utilization_percent": 93,
        "hardware/gpu0/memory_busy_percent": 41,
        "hardware/gpu0/temperature_celsius": 61,
        "hardware/gpu0/sm_clock_mhz": 1980,
        "hardware/gpu0/memory_clock_mhz": 2619,
        "hardware/gpu0/power_watts": 300,
        "hardware/gpu0/throttled_power": 1,
        "hardware/gpu0/throttled_heat": 0,
        "hardware/gpu0/throttled_hardware": 0,
    }
    nvml.reasons = 0x40
    later = gpu.read()
    assert (later["hardware/gpu0/throttled_power"], later["hardware/gpu0/throttled_heat"]) == (0, 1)
    gpu.session.close()
    assert nvml.open == 0


def test_without_a_counter_energy_is_the_integral_of_power() -> None:
    nvml, clock = Nvml("energy"), Clock()
    from trimtab.monitor.hardware import Gpu, NvmlSession

    gpu = Gpu(NvmlSession(nvml), "handle", "gpu0", clock=clock)
    clock.now += 2.0
    assert gpu.read()["joules"] == 600.0
    clock.now += 4.0
    nvml.milliwatts = 500_000
    assert gpu.read()["joules"] == 4.0 * (300 + 500) / 2


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    no_driver: Any = Nvml("driver")
    assert open_gpu("1234", "gpu0", no_driver) == (
        None,
        "power, clocks and counters of the GPU are not read: NVML: NVML Shared Library Not Found",
    )
    other: Any = Nvml()
    gpu, why = open_gpu("MIG-77", "gpu0", other)
    assert gpu is None
    assert why.endswith("NVML: Not Found (MIG-77)")
    assert other.open == 0
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    gpu, why = open_gpu("1234", "gpu0")
    assert gpu is None
    assert "pip install 'trimtab[gpu]'" in why


def test_counters_are_what_lies_between_two_samples() -> None:
    nvml: Any = Nvml()
    gpu, _ = open_gpu("1234", "gpu0", nvml)
    assert gpu is not None
    counters = GpuCounters(gpu)
    assert counters.begin() == ""
    # That of the tensor cores could not be computed.
    assert counters.end() == (
        {"sm_busy_percent": 20.0, "sm_occupancy_percent": 30.0, "dram_bandwidth_percent": 100.0},
        "",
    )
    assert nvml.samples == 0
    assert counters.end() == ({}, "")
    nvml.lacking = ("counters",)
    assert "Hopper" in counters.begin()
    assert (NoCounters("no driver").begin(), NoCounters("no driver").end()) == ("no driver", ({}, ""))


class Script:
    """A source that gives, or raises, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def read(self) -> dict[str, float]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_window_gets_the_means_of_its_readings_and_the_energy_spent() -> None:
    clock = Clock()
    source = Script({"a": 1.0, "joules": 1800.0}, {"a": 3.0, "joules": 1800.0}, {"a": 5.0, "joules": 7200.0})
    sampler = Sampler([source, Script({"joules": 3600.0}, {}, {})], 5.0, clock=clock)
    assert sampler.close(10, 1.0, 500.0)() == {}
    for _ in range(2):
        sampler.sample()
        clock.now += 5.0
    values = dict(sampler.close(10, 10.0, 1500.0)())
    assert 0 < values.pop("hardware/sampling_percent") < 1
    assert values == {"a": 2.0, "hardware/energy_wh": 2.0, "hardware/tokens_per_wh": 1000.0}
    sampler.sample()
    values = dict(sampler.close(10, 10.0, 4.0)())
    del values["hardware/sampling_percent"]
    assert values == {"a": 5.0, "hardware/energy_wh": 2.0, "hardware/tokens_per_wh": 2.0}


def test_a_source_that_fails_harms_nothing_and_is_left_after_three_failures() -> None:
    broken = Script(OSError("gone"), {"b": 1.0}, *[OSError("gone")] * 3)
    sampler = Sampler([broken, Script(*[{"a": 1.0}] * 7)], 5.0)
    for _ in range(4):
        sampler.sample()
    with pytest.warns(UserWarning, match="Script is read no more: OSError"):
        sampler.sample()
    sampler.sample()
    assert broken.answers == []
    values = sampler.close(1, 1.0, 1.0)()
    assert (values["a"], values["b"]) == (1.0, 1.0)


def test_the_thread_reads_ends_and_takes_less_than_a_thousandth(tmp_path: Path) -> None:
    with Sampler([Host(tmp_path)], 0.05) as sampler:
        time.sleep(0.4)
        names = [thread.name for thread in threading.enumerate()]
        assert "trimtab-hardware" in names
    assert "trimtab-hardware" not in [thread.name for thread in threading.enumerate()]
    values = sampler.close(1, 1.0, 1.0)()
    assert values["hardware/process_memory_bytes"] > 1e6
    # At the default of 5 s; here it is read a hundred times as often.
    assert values["hardware/sampling_percent"] * 0.05 / 5.0 < 0.1


def test_with_nothing_to_read_there_is_no_thread() -> None:
    with Sampler([], 5.0):
        assert "trimtab-hardware" not in [thread.name for thread in threading.enumerate()]


def test_the_stand_in_is_like_the_package() -> None:
    """What is asked of NVML exists in nvidia-ml-py by these names and numbers; without a driver that is one line."""
    nvml = pytest.importorskip("pynvml")
    for name in vars(Nvml):
        if name.startswith(("nvml", "c_nvml", "NVML")):
            assert hasattr(nvml, name), name
    assert [getattr(nvml, f"NVML_GPM_METRIC_{name}") for name in ("SM_UTIL", "SM_OCCUPANCY")] == [2, 3]
    assert [getattr(nvml, f"NVML_GPM_METRIC_{name}") for name in ("ANY_TENSOR_UTIL", "DRAM_BW_UTIL")] == [5, 10]
    assert (nvml.NVML_TEMPERATURE_GPU, nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM) == (0, 1, 2)
    power = nvml.nvmlClocksEventReasonSwPowerCap | nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
    heat = nvml.nvmlClocksEventReasonSwThermalSlowdown | nvml.nvmlClocksEventReasonHwThermalSlowdown
    assert (power, heat, nvml.nvmlClocksEventReasonHwSlowdown) == (0x84, 0x60, 0x8)
    asked = nvml.c_nvmlGpmMetricsGet_t()
    asked.metrics[3].metricId = 10
    assert {"version", "numMetrics", "sample1", "sample2", "metrics"} <= {field[0] for field in asked._fields_}
    gpu, why = open_gpu("GPU-of-no-machine", "gpu0")
    assert gpu is None
    assert why.count("\n") == 0
    assert why.startswith("power, clocks and counters of the GPU are not read: NVML: ")


def test_a_driver_that_hangs_is_left_behind() -> None:
    released = threading.Event()

    class Hangs:
        def read(self) -> dict[str, float]:
            released.wait(30)
            return {}

    with Sampler([Hangs()], 0.01) as sampler:
        time.sleep(0.1)
        begun = time.perf_counter()
        assert sampler.close(1, 1.0, 1.0)() == {}
        assert time.perf_counter() - begun < 0.1  # a window waits for no reading
        begun = time.perf_counter()
    assert time.perf_counter() - begun < 4
    released.set()
