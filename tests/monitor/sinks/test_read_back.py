"""What a sink wrote, read by the tool's own reader: after a kill and a resume, and after a rollback."""

from __future__ import annotations

import json
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from told_events import (
    evaluation,
    killed_at_30,
    record,
    resumed_from_20,
    rolled_back_from_20_to_10,
    tell,
    window,
)

from trimtab.config.sinks import PrometheusSink
from trimtab.events import ArtifactLogged, Event, RunStarted
from trimtab.monitor.sinks.contract import Sink
from trimtab.monitor.sinks.novelty import Told
from trimtab.monitor.sinks.points import points_of

NAMES: Final = ("tensorboard", "wandb", "mlflow", "trackio")


BASE = ""


@pytest.fixture(scope="module", autouse=True)
def _base(tmp_path_factory: pytest.TempPathFactory) -> None:
    global BASE
    BASE = str(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def made(name: str, run: Path, **more: Any) -> Sink:
    """The sink, as for an attempt of `run`."""
    pytest.importorskip(name)
    run.mkdir(exist_ok=True)
    record, config = run / "record.jsonl", {"optimizer.learning_rate": 1e-3, "seed": 0}
    if name == "tensorboard":
        from trimtab.monitor.sinks.tensorboard import TensorBoard

        return TensorBoard(run / "tensorboard", run, record, hyperparameters=config, **more)
    if name == "wandb":
        from trimtab.monitor.sinks.wandb import WeightsAndBiases

        return WeightsAndBiases(run, record, run.name, config=config, mode="offline", points="step", **more)
    if name == "mlflow":
        from trimtab.monitor.sinks.mlflow import Mlflow

        uri = f"sqlite:///{BASE}/mlflow.db"  # one for all tests: its tables take a second
        return Mlflow(run, record, run.name, config=config, tracking_uri=uri, points="step", **more)
    from trackio import sqlite_storage

    from trimtab.monitor.sinks.trackio import Trackio

    sqlite_storage.TRACKIO_DIR = run.parent / "trackio"
    return Trackio(record, run.name, config=config, points="step", **more)


def curve(name: str, run: Path, metric: str) -> list[tuple[int, float]]:
    """Steps and values of `metric`, in the order of their writing, by the tool's own reader."""
    if name == "tensorboard":
        found = board(run).Scalars(metric)
        return [(one.step, one.value) for one in found]
    if name == "wandb":
        rows = [row for path in sorted(run.glob("wandb/offline-run-*")) for row in history(path)]
        return [(row["step"], float(row[metric])) for row in rows if metric in row]
    if name == "mlflow":
        client, run_id = mlflow_run(run)
        history_ = client.get_metric_history(run_id, metric.replace("@", "."))
        return [(one.step, one.value) for one in history_]
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("trimtab", run.name)
    return [(row["step"], float(row[metric])) for row in rows if metric in row]


def board(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = dict.fromkeys(("scalars", "tensors", "histograms", "images"), 0)
    return EventAccumulator(str(run / "tensorboard"), size_guidance=everything).Reload()


def mlflow_run(run: Path) -> tuple[Any, str]:
    from mlflow.tracking import MlflowClient

    kept = json.loads((run / "sinks" / "mlflow.json").read_text())
    return MlflowClient(tracking_uri=kept["tracking_uri"]), kept["run_id"]


def wandb_records(folder: Path) -> list[Any]:
    """Those of a run that has ended: their process writes on for a moment after it said that it is done."""
    for _ in range(200):
        found = list(_wandb_records(folder))
        if any(one.WhichOneof("record_type") == "exit" for one in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no end in {folder}: {[one.WhichOneof('record_type') for one in found]}")


def _wandb_records(folder: Path) -> Iterator[Any]:
    """The records of an offline run: W&B's protobufs in the blocks of a LevelDB log, behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32_768 - place % 32_768 < 7:
            place += 32_768 - place % 32_768
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part = data[place + 7 : place + 7 + length]
        if len(part) < length:
            return
        assert checksum == zlib.crc32(bytes([kind]) + part)
        whole += part
        place += 7 + length
        if kind in (1, 4):
            record_ = wandb_internal_pb2.Record()
            record_.ParseFromString(whole)
            yield record_
            whole = b""


def history(folder: Path) -> list[dict[str, Any]]:
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in one.history.item}
        for one in wandb_records(folder)
        if one.WhichOneof("record_type") == "history"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_after_a_kill_every_step_is_there_once(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "run").mkdir()
    first, second = killed_at_30(), resumed_from_20()
    record(run / "record.jsonl", first)
    tell(made(name, run), first, close=name == "wandb")  # one process has a run of W&B's open once
    record(run / "record.jsonl", second)
    tell(made(name, run), second)
    found = curve(name, run, "train/loss")
    assert [step for step, _ in found] == list(range(1, 41))
    assert [value for _, value in found] == pytest.approx([4.0 - step / 100 for step in range(1, 41)], abs=1e-6)
    assert curve(name, run, "validation/loss") == [(step, pytest.approx(4.0 - step / 100)) for step in (10, 20, 30, 40)]
    assert curve(name, run, "validation/loss@ema")[-1] == (40, pytest.approx(3.7))
    assert [value for _, value in curve(name, run, "run/attempt")] == [1.0, 2.0]
    norms = dict(curve(name, run, "grad_norm"))
    assert norms[7] == np.inf or name == "mlflow"
    assert norms[8] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_after_changed_settings_is_told_again(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    first, second = killed_at_30(), resumed_from_20(facts={"drift": ["config.optimizer.learning_rate"]}, shift=1.0)
    record(run / "record.jsonl", first)
    tell(made(name, run), first, close=name == "wandb")  # one process has a run of W&B's open once
    record(run / "record.jsonl", second)
    tell(made(name, run), second)
    found = curve(name, run, "train/loss")
    again = [(step, 4.0 - step / 100 + (1.0 if step > 20 else 0.0)) for step in range(1, 41)]
    told_before = [(step, 4.0 - step / 100) for step in range(21, 31)] if name != "tensorboard" else []
    expected = [*again[:20], *told_before, *again[20:]]
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted(expected)), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_rollback_shows(name: str, tmp_path: Path) -> None:
    run, events = tmp_path / "run", rolled_back_from_20_to_10()
    sink = made(name, run)
    tell(sink, events)
    found = curve(name, run, "train/loss")
    left = [(step, 4.0 - step / 100) for step in range(11, 21)]
    new = [(step, value + 0.5) for step, value in left]
    expected = [(step, 4.0 - step / 100) for step in range(1, 11)]
    # TensorBoard forgets what was left; the others take nothing back, and show both.
    expected += new if name == "tensorboard" else [*left, *new]
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted(expected)), abs=1e-6)
    assert [value for _, value in curve(name, run, "run/branch")] == [0.0, 1.0]


def test_tensorboard_has_texts_pictures_histograms_and_hyperparameters(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sink = made("tensorboard", run)
    (run / "artifacts").mkdir()
    (run / "artifacts" / "map.png").write_bytes(png())
    events: list[Event] = [
        RunStarted(0, 1, 0, None, 40),
        ArtifactLogged(5, "picture", "attention/layer-0", path="artifacts/map.png"),
        ArtifactLogged(5, "histogram", "weights", json.dumps({"edges": [-1.0, 0.0, 2.0], "counts": [3, 5]})),
        ArtifactLogged(5, "histogram", "broken", "no histogram"),
        *resumed_from_20()[1:],
    ]
    tell(sink, events)
    read = board(run)
    assert read.Images("attention/layer-0")[0].width == 2
    bars = read.Histograms("weights")[0].histogram_value
    assert (bars.min, bars.max, bars.num, bars.sum) == (-1.0, 2.0, 8.0, -0.5 * 3 + 1.0 * 5)
    assert (list(bars.bucket_limit), list(bars.bucket)) == ([0.0, 2.0], [3.0, 5.0])
    assert read.Tags()["histograms"] == ["weights"]
    assert read.Scalars("layer/blocks.0/activation_rms")[-1].value == 0.5
    tensors = read.Tags()["tensors"]
    said = {tag: read.Tensors(tag)[-1].tensor_proto.string_val[0] for tag in tensors if tag.startswith("text/")}
    texts = {tag: text.decode() for tag, text in said.items()}
    assert texts["text/diagnosis"] == "healthy: all is well"
    assert texts["text/finding"] == "warning overfitting: it learns by heart"
    assert texts["text/alert"] == "step 7 is not finite"
    assert texts["text/end"] == "finished: all 40 steps done"
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    about = {
        tag: read.SummaryMetadata(tag).plugin_data for tag in read.Tags()["tensors"] if tag.startswith("_hparams_")
    }
    began = metadata.parse_session_start_info_plugin_data(about[metadata.SESSION_START_INFO_TAG].content)
    assert began.hparams["optimizer.learning_rate"].number_value == 1e-3
    assert began.group_name == "run"
    ended = metadata.parse_session_end_info_plugin_data(about[metadata.SESSION_END_INFO_TAG].content)
    assert ended.status == 1  # STATUS_SUCCESS
    assert isinstance(ended, plugin_data_pb2.SessionEndInfo)


def png() -> bytes:
    """A picture of 2 × 1 grey points."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\x10\xf0")) + chunk(b"IEND", b"")
    )


def test_examinations_have_curves_and_histograms_once(tmp_path: Path) -> None:
    from trimtab.events import ExaminationEnded, Histogram

    run = tmp_path / "run"
    run.mkdir()
    bars = {"layer/blocks.0/weight": Histogram(-1.0, 1.0, (1.0, 3.0))}
    one = ExaminationEnded(10, {"probe/kurtosis": 3.0}, 0.1, {"layer/blocks.0/mean": 0.5}, bars)
    record(run / "record.jsonl", [RunStarted(0, 1, 0, None, 40), one])
    tell(made("tensorboard", run), [RunStarted(0, 1, 0, None, 40), one])
    tell(made("tensorboard", run), [RunStarted(5, 2, 1, 5, 40), one])
    assert curve("tensorboard", run, "probe/kurtosis") == [(10, 3.0)]
    assert curve("tensorboard", run, "layer/blocks.0/mean") == [(10, 0.5)]
    (found,) = board(run).Histograms("layer/blocks.0/weight")
    assert list(found.histogram_value.bucket_limit) == [0.0, 1.0]
    assert list(found.histogram_value.bucket) == [1.0, 3.0]
    told = Told.before(run / "record.jsonl", 1)
    assert told.examinations == 10
    assert not told.is_new(one, next(points_of(one, "window", layers=False)))


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_an_examination_that_a_kill_took_from_a_sink_is_told_once_again(name: str, tmp_path: Path) -> None:
    from trimtab.events import ExaminationEnded

    run = tmp_path / "run"
    run.mkdir()
    one, lost = (ExaminationEnded(step, {"probe/kurtosis": float(step)}, 0.1) for step in (10, 20))
    record(run / "record.jsonl", [RunStarted(0, 1, 0, None, 40), one, lost])
    tell(made(name, run), [RunStarted(0, 1, 0, None, 40), one])
    tell(made(name, run), [RunStarted(5, 2, 1, 5, 40), one, lost])
    assert curve(name, run, "probe/kurtosis") == [(10, 10.0), (20, 20.0)]


def test_wandb_keeps_one_run_with_configuration_tags_and_summary(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    first, second = killed_at_30(), resumed_from_20()
    record(run / "record.jsonl", first)
    tell(made("wandb", run, project="p", tags=("a", "b")), first)
    record(run / "record.jsonl", second)
    tell(made("wandb", run, project="p", tags=("a", "b")), second)
    folders = sorted(run.glob("wandb/offline-run-*"))
    identity = json.loads((run / "sinks" / "wandb.json").read_text())["id"]
    runs = [one.run for folder in folders for one in wandb_records(folder) if one.WhichOneof("record_type") == "run"]
    assert len(folders) == 2
    assert {one.run_id for one in runs} == {identity}
    assert (runs[0].project, list(runs[0].tags), runs[0].display_name) == ("p", ["a", "b"], "run")
    assert {item.key: json.loads(item.value_json) for item in runs[0].config.update}["seed"] == 0
    summary: dict[str, Any] = {}
    for one in wandb_records(folders[-1]):
        if one.WhichOneof("record_type") == "summary":
            summary |= {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one.summary.update
            }
    assert summary["status"] == "finished"
    assert summary["best/step"] == 40
    assert summary["text/diagnosis"] == "healthy: all is well"
    kinds = [one.WhichOneof("record_type") for one in wandb_records(folders[-1])]
    assert "alert" in kinds
    assert "output_raw" not in kinds
    html = [path.read_text() for path in folders[0].rglob("*.html")]
    assert any("&lt;b&gt;x&lt;/b&gt;" in text for text in html)
    assert not any("<b>" in text for text in html)


def test_wandb_online_without_an_account_is_refused_before_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    from trimtab.errors import ConfigError
    from trimtab.monitor.sinks.wandb import check_account

    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no account for https://api\.wandb\.ai"):
        check_account()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_account()


def test_mlflow_has_parameters_tags_status_and_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "report.html").write_text("<p>well</p>")
    tell(made("mlflow", run, tags={"team": "ours"}), [RunStarted(0, 1, 0, None, 40), *resumed_from_20()[1:]])
    client, run_id = mlflow_run(run)
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"optimizer.learning_rate": "0.001", "seed": "0"}
    assert found.data.tags["team"] == "ours"
    assert found.data.tags["trimtab.diagnosis"] == "healthy: all is well"
    assert sorted(one.path for one in client.list_artifacts(run_id)) == ["config.yaml", "report.html"]
    assert client.get_experiment(found.info.experiment_id).name == "trimtab"


def test_mlflow_writes_into_a_folder_where_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from trimtab.monitor.sinks.mlflow import Mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    run = tmp_path / "run"
    run.mkdir()
    tell(Mlflow(run, run / "record.jsonl", "run", tracking_uri="mlruns", points="step"), killed_at_30())
    assert [step for step, _ in curve("mlflow", run, "train/loss")] == list(range(1, 31))
    assert json.loads((run / "sinks" / "mlflow.json").read_text())["tracking_uri"] == str(tmp_path / "mlruns")


def test_mlflow_takes_every_name_and_confuses_none(tmp_path: Path) -> None:
    from trimtab.events import EvaluationEnded

    run = tmp_path / "run"
    sink = made("mlflow", run)
    names = ("validation/loss@ema", "validation/loss.ema", "user/größe [m²]", "user/../x", "user/" + "n" * 400)
    tell(sink, [EvaluationEnded(1, {name: float(place) for place, name in enumerate(names)}, 0.1)])
    client, run_id = mlflow_run(run)
    values = client.get_run(run_id).data.metrics
    assert sorted(values.values()) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert values["validation/loss.ema"] == 0.0


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def parsed(text: str) -> dict[str, float]:
    """Samples of the exposition format by name and labels; every line must be of it."""
    import re

    found: dict[str, float] = {}
    typed: set[str] = set()
    label = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"'
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("gauge", "counter")
            assert name not in typed
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = re.fullmatch(rf"([a-zA-Z_:][\w:]*)(\{{{label}(?:,{label})*\}}) (\S+)", line)
            assert match is not None, line
            assert match[1] in typed
            assert match[1] + match[2] not in found
            found[match[1] + match[2]] = float(match[3])
    return found


def test_prometheus_serves_the_newest_values(tmp_path: Path) -> None:
    from trimtab.monitor.sinks.prometheus import Prometheus

    sink = Prometheus(tmp_path, 'ru"n\\', port=0, layers=True)
    for event in (RunStarted(0, 1, 0, None, 40), window(5), window(10), evaluation(10)):
        sink.observe(event)
    assert json.loads((tmp_path / "sinks" / "prometheus.json").read_text())["url"] == sink.url
    status, text = get(sink.url)
    assert status == 200
    values, run = parsed(text), 'run="ru\\"n\\\\"'
    assert values[f"trimtab_train_loss{{{run}}}"] == pytest.approx(4.0 - 0.08)
    assert values[f"trimtab_validation_loss{{{run}}}"] == pytest.approx(3.9)
    assert values[f'trimtab_validation_loss{{{run},weights="ema"}}'] == pytest.approx(4.0)
    assert values[f'trimtab_layer_activation_rms{{{run},layer="blocks.0"}}'] == 0.5
    assert values[f"trimtab_steps_total{{{run}}}"] == 10
    assert values[f"trimtab_tokens_total{{{run}}}"] == 640
    assert values[f"trimtab_grad_norm{{{run}}}"] == np.inf
    assert values[f"trimtab_run_running{{{run}}}"] == 1.0
    assert "# HELP trimtab_train_loss total of the objective's terms per counted target (nats)" in text
    assert get(sink.url, Host="evil.example.com")[0] == 403
    assert get(sink.url.replace("/metrics", "/../etc/passwd"))[0] == 404
    sink.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(sink.url, timeout=2)


def test_prometheus_asks_for_its_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from trimtab.monitor.sinks.prometheus import Prometheus

    monkeypatch.setenv("SCRAPE_TOKEN", "s3cret-enough")
    sink = Prometheus(tmp_path, "run", port=0, token_variable="SCRAPE_TOKEN")
    assert get(sink.url)[0] == 401
    assert get(sink.url, Authorization="Bearer wrong")[0] == 401
    assert get(sink.url, Authorization="Bearer s3cret-enough")[0] == 200
    sink.close()
    monkeypatch.delenv("SCRAPE_TOKEN")
    with pytest.raises(ValueError, match="SCRAPE_TOKEN"):
        Prometheus(tmp_path, "run", port=0, token_variable="SCRAPE_TOKEN")
    with pytest.raises(ValueError, match="shows the run to the network"):
        PrometheusSink(host="0.0.0.0")


def test_two_runs_at_one_port_are_told_of(tmp_path: Path) -> None:
    from trimtab.monitor.sinks.prometheus import Prometheus

    one = Prometheus(tmp_path, "one", port=0)
    port = int(one.url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(OSError, match="cannot be listened at"):
        Prometheus(tmp_path, "two", port=port)
    one.close()


@pytest.mark.parametrize(
    ("lines", "branch", "told"),
    [
        ([], 1, (0, 0)),
        (killed_at_30(), 1, (30, 30)),
        (killed_at_30(), 0, (0, 0)),
        ([*killed_at_30(), RunStarted(20, 2, 1, 20, 40)], 2, (30, 30)),
        ([*killed_at_30(), RunStarted(20, 1, 1, 20, 40), window(25)], 2, (25, 20)),
        ([*killed_at_30(), RunStarted(20, 2, 1, 20, 40, {"drift": ["seed"]}), window(25)], 2, (25, 20)),
    ],
)
def test_what_was_told_is_read_from_the_record(
    lines: Sequence[Event], branch: int, told: tuple[int, int], tmp_path: Path
) -> None:
    record(tmp_path / "record.jsonl", lines)
    assert Told.before(tmp_path / "record.jsonl", branch) == Told(*told)
