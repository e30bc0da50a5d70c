"""A log in which no loss is known is not judged, and says what to map; one that knows its loss is silent about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.doctor.case import Case
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_foreign_case
from trimtab.errors import EXIT_FINDINGS
from trimtab.report import render_text
from trimtab.runs.history import History
from trimtab.runs.unnamed_losses import added_losses, unnamed_losses


def log(folder: Path, header: str) -> Path:
    path = folder / "log.csv"
    rows = [f"{10 * at},{7 * 0.99**at:.4f},{7.1 * 0.99**at:.4f}" for at in range(200)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_log_without_a_known_loss_is_not_judged_and_fails(tmp_path: Path) -> None:
    path = log(tmp_path, "it,trn_objective,dev_objective")
    case, imported = open_foreign_case(path)
    diagnosis = diagnose(case)
    assert diagnosis.verdict == "attention"
    assert [finding.code for finding in diagnosis.findings] == ["no-loss"]
    assert render_text(diagnosis).splitlines()[0].endswith(": not judged (1 warning)")
    assert "log train/loss" not in render_text(diagnosis)  # what to map is said above
    for told in (diagnosis.summary, " ".join(imported.notes)):
        assert "--map trn_objective=train/loss" in told
        assert "--map dev_objective=validation/loss" in told
    for severity in ("info", "warning", "error"):
        assert CliRunner().invoke(app, ["doctor", str(path), "--fail-on", severity]).exit_code == EXIT_FINDINGS
    mapped = {"trn_objective": "train/loss", "dev_objective": "validation/loss"}
    assert not [one for one in diagnose(open_foreign_case(path, mapped)[0]).findings if one.code == "no-loss"]


def test_columns_that_look_like_nothing_get_a_hint_all_the_same(tmp_path: Path) -> None:
    diagnosis = diagnose(open_foreign_case(log(tmp_path, "it,alpha,beta"))[0])
    assert diagnosis.verdict == "attention"
    assert "--map <column>=train/loss" in diagnosis.summary
    assert "alpha, beta" in diagnosis.findings[0].evidence[0].text


def test_a_validation_loss_alone_is_a_remark_unless_a_column_looks_like_a_training_loss(tmp_path: Path) -> None:
    assert diagnose(open_foreign_case(log(tmp_path, "it,val_loss,beta"))[0]).verdict == "healthy"
    diagnosis = diagnose(open_foreign_case(log(tmp_path, "it,val_loss,trn_objective"))[0])
    assert (diagnosis.verdict, diagnosis.findings[0].code) == ("attention", "no-loss")


def test_a_run_without_steps_is_not_accused() -> None:
    history = History()
    assert diagnose(Case(history)).findings == ()
    history.add("validation/loss", np.array([0]), np.array([3.0]))
    assert diagnose(Case(history)).findings == ()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["trn_objective", "dev_objective"], {"trn_objective": "train/loss", "dev_objective": "validation/loss"}),
        (["myloss", "valLoss", "acc"], {"myloss": "train/loss", "valLoss": "validation/loss"}),
        (["loss_scale_b", "accuracy", "closs"], {"closs": "train/loss"}),
        (["lr", "best_objective", "device", "price"], {}),
    ],
)
def test_names_that_look_like_losses(names: list[str], found: dict[str, str]) -> None:
    assert unnamed_losses(names) == found


def detection(folder: Path, turn: float) -> Path:
    """As Ultralytics writes it: a row for each epoch, parts of the loss, and no loss of them all."""
    path = folder / "results.csv"
    rows = ["  epoch,  train/box_loss,  train/cls_loss,  metrics/mAP50(B),  val/box_loss,  val/cls_loss,  lr/pg0"]
    for epoch in range(1, 61):
        fall, risen = 0.95**epoch, turn * max(0, epoch - 20)
        rows.append(f"{epoch},{0.3 + fall:.4f},{0.1 + 3 * fall:.4f},0.5,{1 + fall:.4f},{1 + 2 * fall + risen:.4f},0.01")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_parts_of_one_loss_are_judged_as_their_sum(tmp_path: Path) -> None:
    case, imported = open_foreign_case(detection(tmp_path, turn=0.03))
    assert imported.names["train/box_loss + train/cls_loss"] == "train/loss"
    assert imported.names["val/box_loss + val/cls_loss"] == "validation/loss"
    assert any("2 parts were minimized together" in note for note in imported.notes)
    loss = case.loss()
    assert loss is not None
    assert loss.raw()[1][0] == pytest.approx(0.4 + 4 * 0.95, abs=1e-3)
    assert diagnose(case).findings[0].code == "overfitting"
    assert diagnose(open_foreign_case(detection(tmp_path, turn=0.0))[0]).verdict == "healthy"
    mapped = open_foreign_case(tmp_path / "results.csv", {"train/cls_loss": "train/loss"})[1].names
    assert list(mapped.values()).count("train/loss") == 1


@pytest.mark.parametrize(
    "names", ["loss_G,loss_D", "generator_loss,discriminator_loss", "policy_loss,value_loss", "pg_loss,vf_loss"]
)
def test_losses_of_a_game_are_not_added(tmp_path: Path, names: str) -> None:
    diagnosis = diagnose(open_foreign_case(log(tmp_path, f"it,{names}"))[0])
    assert [finding.code for finding in diagnosis.findings] == ["no-loss"]
    assert f"{names.replace(',', ' and ')} are of a game" in diagnosis.summary


def test_what_is_no_part_of_one_loss_is_not_added() -> None:
    both = ["loss_ce", "loss_bbox"]
    assert added_losses([*both, "loss_ce_unscaled", "val/loss_ce"]) == {"train/loss": tuple(both)}
    assert added_losses(["cls_loss", "val/box_loss"]) == {}
    assert added_losses(["adam_loss", "sgd_loss"]) == {}
    assert added_losses(["loss_rank0", "loss_rank1"]) == {}
    assert added_losses([*both, "overall_loss"]) == {"train/loss": tuple(both)}
    steps = ["box_loss_step", "cls_loss_step"]
    assert added_losses([*steps, "box_loss_epoch", "cls_loss_epoch"]) == {"train/loss": tuple(steps)}
