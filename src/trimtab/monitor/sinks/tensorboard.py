"""TensorBoard: scalars, histograms, texts, pictures and hyperparameters as event files in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.text import metadata as text_metadata

from trimtab.events import ArtifactLogged, Event, ExaminationEnded, RunEnded, RunStarted
from trimtab.monitor.sinks.event_file import EventFile
from trimtab.monitor.sinks.histogram import Histogram, histogram_of, of_bins
from trimtab.monitor.sinks.novelty import Told
from trimtab.monitor.sinks.points import Points, Said, points_of, said_in

_ENDS: Final = {
    "finished": api_pb2.STATUS_SUCCESS,
    "stopped": api_pb2.STATUS_SUCCESS,
    "interrupted": api_pb2.STATUS_UNKNOWN,
    "failed": api_pb2.STATUS_FAILURE,
}


@final
class TensorBoard:
    """Writes into `folder`. An attempt that goes on from a step, and a rollback, take back what lies beyond it."""

    def __init__(
        self,
        folder: Path,
        run: Path,
        record: Path,
        *,
        hyperparameters: Mapping[str, bool | int | float | str] | None = None,
        points: Points = "step",
        layers: bool = True,
    ) -> None:
        """`run` is the folder that pictures are named from, `record` tells what earlier attempts had told."""
        self._folder, self._run, self._record = folder, run, record
        self._hyperparameters = dict(hyperparameters or {})
        self._points, self._layers = points, layers
        self._told = Told()
        self._file: EventFile | None = None

    def observe(self, event: Event) -> None:
        """Write what `event` says; all of it or nothing. Raises: OSError."""
        if isinstance(event, RunStarted):
            self._begin(event)
        file = self._opened()
        told = replace(self._told)
        new = [one for one in points_of(event, self._points, layers=self._layers) if told.is_new(event, one)]
        summaries = [(one.step, _scalars(one.values)) for one in new]
        summaries += [(said.step, _text(said)) for said in said_in(event)]
        summaries += list(self._artifacts(event))
        if isinstance(event, RunStarted) and self._hyperparameters:
            names = ("train/loss", "validation/loss")
            summaries.insert(0, (0, hparams.hparams_config_pb([], [hparams.Metric(name) for name in names])))
            summaries.insert(1, (0, hparams.hparams_pb(self._hyperparameters, trial_id=self._run.resolve().name)))
        if isinstance(event, RunEnded):
            summaries.append((event.step, _session_end(event)))
            if event.best_value is not None:
                summaries.append((event.step, _scalars({"run/best": event.best_value})))
        if summaries:
            file.write(summaries)
        self._told = told

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _begin(self, event: RunStarted) -> None:
        if self._file is not None:  # the run went back
            self._told.take_back(event.step)
            self._file.forget_after(event.step)
            return
        goes_on = event.attempt > 1
        if goes_on:
            self._told.begins(event, self._record)
            self._told.take_back(event.step)
        self._file = EventFile(self._folder, event.attempt, goes_on_after=event.step if goes_on else None)

    def _opened(self) -> EventFile:
        if self._file is None:  # the first event was dropped
            self._file = EventFile(self._folder, 0)
        return self._file

    def _artifacts(self, event: Event) -> Iterator[tuple[int, Summary]]:
        if isinstance(event, ExaminationEnded):
            for name, one in event.histograms.items():
                yield event.step, _histogram(name, of_bins(one.low, one.high, one.counts))
        if not isinstance(event, ArtifactLogged):
            return
        if event.kind == "picture" and event.path is not None and event.path.endswith(".png"):
            yield event.step, _picture(event.name, (self._run / event.path).read_bytes())
        elif event.kind == "histogram" and (found := histogram_of(event)) is not None:
            yield event.step, _histogram(event.name, found)


def _scalars(values: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _text(said: Said) -> Summary:
    """Markdown with the text as it is, its lines kept."""
    shown = "\n".join(f"    {line}" for line in said.text.splitlines()) if "\n" in said.text else said.text
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[shown.encode(errors="replace")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    about = text_metadata.create_summary_metadata(display_name="", description="")
    return Summary(value=[Summary.Value(tag=f"text/{said.name}", metadata=about, tensor=tensor)])


def _picture(name: str, png: bytes) -> Summary:
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=name, image=image)])


def _histogram(name: str, one: Histogram) -> Summary:
    """In TensorBoard's form: a bucket's right edge and count; the first begins at `min`."""
    proto = HistogramProto(
        min=one.edges[0],
        max=one.edges[-1],
        num=float(sum(one.counts)),
        sum=one.total,
        sum_squares=one.squares,
        bucket_limit=one.edges[1:],
        bucket=one.counts,
    )
    return Summary(value=[Summary.Value(tag=name, histo=proto)])


def _session_end(event: RunEnded) -> Summary:
    end = plugin_data_pb2.SessionEndInfo(status=_ENDS[event.status], end_time_secs=time.time())
    about: Any = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    assert isinstance(about, SummaryMetadata)
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
