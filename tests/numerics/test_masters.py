"""A bf16 copy of the weights over fp32 masters: what is computed in which, and what a checkpoint holds."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_step import make_batch, make_step
from torch import Tensor

from trimtab.config import Bf16, load_config
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.model import Decoder
from trimtab.objective import CrossEntropy
from trimtab.optimizer import build_optimizer
from trimtab.training import Progress, Step, Windows
from trimtab.training.checkpoint import restore, take
from trimtab.training.checkpoint.host import HostCopies
from trimtab.training.precision import choose_parameters


def _step(**settings: object) -> Step:
    objective = CrossEntropy(0.1, z_loss=1e-3, fused="on")
    return make_step(precision=Bf16(), parameters=torch.bfloat16, objective=objective, **settings)  # type: ignore[arg-type]


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.float().flatten() for tensor in tensors.values()])


def test_the_model_computes_in_bf16_and_the_masters_stay_fp32() -> None:
    step = _step()
    step.run([make_batch(4, 0)], 1)
    assert isinstance(step.model, Decoder)
    output = step.model(make_batch(2, 0).tokens_BT)
    assert output.features.dtype == torch.bfloat16
    for name, parameter in step.model.named_parameters():
        master = step.optimizer.storage.weights[name]
        assert master.dtype == torch.float32
        assert torch.equal(parameter.detach(), master.to(torch.bfloat16)), name


RATES = {"sgd": 0.3, "adafactor": 3e-2, "muon": 3e-2, "lamb": 3e-2}


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"custom", "adamw_8bit"}))
def test_every_optimizer_of_ours_updates_masters_and_hands_on_bf16(name: str) -> None:
    """Its state is fp32, a skipped step leaves all, and it learns as with weights in fp32."""
    options = [f"optimizer.name={name}", "optimizer.weight_decay=0.1"]
    config = load_config(None, options, environment={}).optimizer
    rough = _step(make_optimizer=partial(build_optimizer, config, compute_dtype=torch.bfloat16))
    exact = make_step(objective=CrossEntropy(0.1, z_loss=1e-3), make_optimizer=partial(build_optimizer, config))
    losses = []
    for step in (rough, exact):
        step.set(learning_rate=RATES.get(name, 1e-2))
        for number in range(1, 9):
            step.run([make_batch(4, 0)], number)
        losses.append(step.ring.take().wait()[:, 0])
    assert losses[0][-1] < losses[0][0] - 0.02
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    masters, state = rough.optimizer.storage.weights, rough.optimizer.state_by_name()
    for parameter_name, parameter in rough.model.named_parameters():
        assert masters[parameter_name].dtype == torch.float32
        assert torch.equal(parameter.detach(), masters[parameter_name].to(torch.bfloat16)), parameter_name
    assert torch.bfloat16 not in {tensor.dtype for slots in state.values() for tensor in slots.values()}
    rest = (
        1.0 - torch.stack([(w == w.bfloat16().float()).float().mean() for w in masters.values() if w.ndim > 1])
    ).min()
    assert float(rest) > 0.5, "the masters keep what bf16 would lose"
    before = [t.clone() for t in (*masters.values(), *rough.model.parameters())]
    rough.begin()
    rough.accumulate(make_batch(2, 1))
    next(iter(rough.optimizer.storage.gradients.values())).view(-1)[0] = torch.nan
    rough.update()
    assert all(torch.equal(a, b) for a, b in zip(before, (*masters.values(), *rough.model.parameters()), strict=True))


def test_gradients_stay_near_those_of_fp32() -> None:
    exact, rough = make_step(objective=CrossEntropy(0.1, z_loss=1e-3)), _step()
    for step in (exact, rough):
        step.set(inverse_targets=1.0 / 32, inverse_sequences=1.0)
        step.begin()
        step.accumulate(make_batch(4, 0))
    a, b = (_flat(dict(step.optimizer.storage.gradients)) for step in (exact, rough))
    assert 1e-5 < float((a - b).norm() / a.norm()) < 0.05


def test_micro_batches_are_summed_in_fp32() -> None:
    """Sixteen micro-batches in bf16 sums would lose what fp32 sums keep."""
    batches = [make_batch(1, number) for number in range(16)]
    step = _step()
    parts: list[Tensor] = []
    step.set(inverse_targets=1.0 / 128, inverse_sequences=1.0)
    for batch in batches:
        step.begin()
        step.accumulate(batch)
        parts.append(_flat(dict(step.optimizer.storage.gradients)))
    step.begin(in_parts=True)
    for batch in batches:
        step.accumulate(batch, 1.0 / 16)
    together = step.optimizer.storage.gradients
    assert next(iter(together.values())).dtype == torch.float32
    assert torch.allclose(_flat(dict(together)), torch.stack(parts).sum(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("count", [1, 3])
def test_it_learns_as_fp32_does(count: int) -> None:
    rough, exact = _step(), make_step(objective=CrossEntropy(0.1, z_loss=1e-3))
    losses = []
    for step in (rough, exact):
        for number in range(1, 9):
            step.run([make_batch(4, part) for part in range(count)], number)
        losses.append(step.ring.take().wait()[:, 0])
    assert losses[0][-1] < losses[0][0] - 0.05
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_a_checkpoint_holds_the_masters_and_gives_the_same_bits_back() -> None:
    def windows(step: Step) -> Windows:
        return Windows(step.ring, lambda: 0.0)

    whole, left, resumed = _step(dropout=0.2), _step(dropout=0.2), _step(dropout=0.2)
    for number in range(1, 5):
        whole.run([make_batch(2, number)], number)
    for number in (1, 2):
        left.run([make_batch(2, number)], number)
    snapshot = take(left, windows(left), Progress(), [], HostCopies())
    assert {tensor.dtype for name, tensor in snapshot.tensors.items() if name.startswith("model/")} == {torch.float32}
    restore(snapshot, resumed, windows(resumed), Progress())
    for number in (3, 4):
        resumed.run([make_batch(2, number)], number)
    for name, weight in whole.optimizer.storage.weights.items():
        assert torch.equal(weight, resumed.optimizer.storage.weights[name]), name
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_a_skipped_step_leaves_both_copies() -> None:
    step = _step()
    step.run([make_batch(2, 0)], 1)
    before = [t.clone() for t in (*step.optimizer.storage.weights.values(), *step.model.parameters())]
    step.begin()
    step.accumulate(make_batch(2, 1))
    next(iter(step.optimizer.storage.gradients.values())).view(-1)[0] = torch.nan
    step.update()
    after = [*step.optimizer.storage.weights.values(), *step.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_held_update_changes_nothing() -> None:
    step = _step()
    before = [t.clone() for t in (*step.optimizer.storage.weights.values(), *step.model.parameters())]
    step.holds.fill_(1.0)
    step.run([make_batch(2, 0)], 1)
    after = [*step.optimizer.storage.weights.values(), *step.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert float(step.ring.take().wait()[0, -1]) == 1.0


def test_at_the_end_the_parameters_are_the_masters() -> None:
    step = _step()
    step.run([make_batch(2, 0)], 1)
    step.optimizer.storage.hand_back()
    for name, parameter in step.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.data_ptr() == step.optimizer.storage.weights[name].data_ptr()
    assert step.model(make_batch(2, 0).tokens_BT).features.dtype == torch.float32


def test_which_precision_is_chosen_and_why() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_parameters(Bf16(), cuda, ours=True)[0] == torch.bfloat16
    assert choose_parameters(Bf16(), cpu, ours=True)[0] == torch.float32
    assert choose_parameters(Bf16(parameters="bf16"), cpu, ours=True)[0] == torch.bfloat16
    assert choose_parameters(Bf16(parameters="fp32"), cuda, ours=True)[0] == torch.float32
    dtype, why = choose_parameters(Bf16(), cuda, ours=False)
    assert dtype == torch.float32
    assert "from outside" in why
