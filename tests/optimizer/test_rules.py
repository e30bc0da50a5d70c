"""Every algorithm against its reference, over 100 steps in fp64: torch's own, or a plain computation of its paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.optimizer import (
    Now,
    Rule,
    adafactor,
    adam,
    galore,
    lamb,
    lion,
    muon,
    schedule_free_adamw,
    sgd,
    soap,
    sophia,
)
from trimtab.optimizer.algorithms.galore import principal, projected_rank
from trimtab.optimizer.algorithms.muon import orthogonalized

STEPS, DECAY = 100, 0.1
SHAPES = [(7, 5), (5, 7), (6,)]


def rate(step: int) -> float:
    return 0.02 * (1.0 - step / 200)


def start(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Noise about a direction, of different sizes, with one gradient of zeros."""
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(shape, generator=generator, dtype=torch.float64)
    for step in range(STEPS):
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        yield (direction + noise) * math.exp(-0.02 * step) * (step != 40)


def ours(rule: Rule, shape: tuple[int, ...], decay: float = DECAY) -> tuple[Tensor, dict[str, Tensor]]:
    weight = start(shape)
    state = rule.begin(weight)
    for step, gradient in enumerate(gradients(shape)):
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (rate(step), decay, step + 1.0))
        weight, state = rule.step(weight, gradient, state, Now(*numbers))
    return weight, state


def theirs(
    make: Callable[[list[Tensor]], torch.optim.Optimizer], shape: tuple[int, ...]
) -> tuple[Tensor, Mapping[str, Any]]:
    weight = torch.nn.Parameter(start(shape))
    optimizer = make([weight])
    for step, gradient in enumerate(gradients(shape)):
        optimizer.param_groups[0]["lr"] = rate(step)
        weight.grad = gradient
        optimizer.step()
    return weight.detach(), optimizer.state[weight]


AGAINST_TORCH: dict[str, tuple[Rule, Callable[[list[Tensor]], torch.optim.Optimizer]]] = {
    "adam with L2": (adam(0.8, 0.95, 1e-6), lambda p: torch.optim.Adam(p, 1.0, (0.8, 0.95), 1e-6, DECAY)),
    "adamw": (adam(0.8, 0.95, decoupled=True), lambda p: torch.optim.AdamW(p, 1.0, (0.8, 0.95), weight_decay=DECAY)),
    "sgd": (sgd(0.0), lambda p: torch.optim.SGD(p, 1.0, weight_decay=DECAY)),
    "momentum": (sgd(0.8), lambda p: torch.optim.SGD(p, 1.0, 0.8, weight_decay=DECAY)),
    "nesterov": (
        sgd(0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, 1.0, 0.8, weight_decay=DECAY, nesterov=True),
    ),
    "adafactor": (adafactor(), lambda p: torch.optim.Adafactor(p, 1.0, weight_decay=DECAY)),
    "adafactor, other constants": (
        adafactor(-0.5, 0.3, 1.5),
        lambda p: torch.optim.Adafactor(p, 1.0, beta2_decay=-0.5, eps=(None, 0.3), d=1.5, weight_decay=DECAY),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_against_torch(name: str, shape: tuple[int, ...]) -> None:
    rule, make = AGAINST_TORCH[name]
    weight, _ = theirs(make, shape)
    assert torch.allclose(ours(rule, shape)[0], weight, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scaling", ["adamw", "shape"])
def test_muon_against_torch(shape: tuple[int, ...], nesterov: bool, scaling: Any) -> None:
    """torch orthogonalizes in bf16, so ours does here; its products are rounded in another order."""
    name = "match_rms_adamw" if scaling == "adamw" else "original"
    weight, state = theirs(
        lambda p: torch.optim.Muon(p, 1.0, weight_decay=DECAY, momentum=0.9, nesterov=nesterov, adjust_lr_fn=name),
        shape,
    )
    rule = muon(0.9, nesterov=nesterov, scaling=scaling, dtype=torch.bfloat16)
    mine, kept = ours(rule, shape)
    assert torch.allclose(kept["momentum"], state["momentum_buffer"], rtol=1e-10, atol=1e-12)
    assert float((mine - weight).norm() / (mine - start(shape)).norm()) < 5e-3


def test_orthogonalized_brings_singular_values_near_one() -> None:
    matrix = start((40, 24))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(matrix)
    expected = values / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    assert torch.allclose(result, left @ torch.diag(expected) @ right, atol=1e-10)
    assert 0.6 < float(expected.min()) <= float(expected.max()) < 1.3
    assert torch.allclose(orthogonalized(matrix.T), result.T, atol=1e-12)
    assert torch.equal(orthogonalized(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_adamw_decouples_and_adam_with_l2_does_not() -> None:
    """Scaling a parameter's gradients leaves what decay takes from it alone under AdamW, and changes it under L2."""

    def taken(rule: Rule, scale: float) -> Tensor:
        found = []
        for decay in (0.0, DECAY):
            weight = start((6,))
            state = rule.begin(weight)
            for step, gradient in enumerate(gradients((6,))):
                numbers = (torch.tensor(v, dtype=torch.float64) for v in (rate(step), decay, step + 1.0))
                weight, state = rule.step(weight, scale * gradient, state, Now(*numbers))
            found.append(weight)
        return found[0] - found[1]

    decoupled = [taken(adam(epsilon=1e-30, decoupled=True), scale) for scale in (1.0, 1000.0)]
    assert torch.allclose(*decoupled, rtol=1e-9)
    coupled = [taken(adam(epsilon=1e-30), scale) for scale in (1.0, 1000.0)]
    assert float((coupled[1] / coupled[0]).abs().max()) < 0.02, "L2 hardly decays weights with large gradients"


def scalars(tensor: Tensor) -> list[float]:
    return [float(value) for value in tensor.flatten()]


@pytest.mark.parametrize("shape", SHAPES)
def test_lion_against_its_paper(shape: tuple[int, ...]) -> None:
    weights, momenta = scalars(start(shape)), [0.0] * math.prod(shape)
    for step, gradient in enumerate(gradients(shape)):
        for i, g in enumerate(scalars(gradient)):
            mixed = 0.9 * momenta[i] + 0.1 * g
            sign = (mixed > 0) - (mixed < 0)
            weights[i] -= rate(step) * (sign + DECAY * weights[i])
            momenta[i] = 0.99 * momenta[i] + 0.01 * g
    assert scalars(ours(lion(), shape)[0]) == pytest.approx(weights, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_lamb_against_its_paper(shape: tuple[int, ...]) -> None:
    w, count = scalars(start(shape)), math.prod(shape)
    m, v = [0.0] * count, [0.0] * count
    for step, gradient in enumerate(gradients(shape)):
        update = []
        for i, g in enumerate(scalars(gradient)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            m_hat, v_hat = m[i] / (1 - 0.9 ** (step + 1)), v[i] / (1 - 0.999 ** (step + 1))
            update.append(m_hat / (math.sqrt(v_hat) + 1e-6) + DECAY * w[i])
        ratio = math.hypot(*w) / math.hypot(*update)
        w = [old - rate(step) * ratio * u for old, u in zip(w, update, strict=True)]
    assert scalars(ours(lamb(), shape)[0]) == pytest.approx(w, rel=1e-9)


def test_lamb_of_a_parameter_that_is_zero_moves() -> None:
    weight, now = torch.zeros(3), Now(*(torch.tensor(v) for v in (0.1, 0.0, 1.0)))
    rule = lamb()
    moved, _ = rule.step(weight, torch.ones(3), rule.begin(weight), now)
    assert torch.allclose(moved, torch.full((3,), -0.1), rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_schedule_free_against_its_paper(shape: tuple[int, ...]) -> None:
    """With all three sequences kept, and the weights of the average by their definition."""
    x, z = scalars(start(shape)), scalars(start(shape))
    y, v, squares = list(x), [0.0] * len(x), []
    for step, gradient in enumerate(gradients(shape)):
        squares.append(rate(step) ** 2)
        c = squares[-1] / sum(squares)
        for i, g in enumerate(scalars(gradient)):
            v[i] = 0.999 * v[i] + 0.001 * g * g
            v_hat = v[i] / (1 - 0.999 ** (step + 1))
            z[i] -= rate(step) * (g / (math.sqrt(v_hat) + 1e-8) + DECAY * y[i])
            x[i] = (1 - c) * x[i] + c * z[i]
            y[i] = (1 - 0.9) * z[i] + 0.9 * x[i]
    rule = schedule_free_adamw()
    weight, state = ours(rule, shape)
    assert scalars(weight) == pytest.approx(y, rel=1e-9)
    assert rule.evaluated is not None
    assert scalars(rule.evaluated(weight, state)) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("shape,max_side", [((6, 6), 100), ((7, 5), 6), ((5, 7), 6), ((7, 7), 6)])
def test_soap_against_its_paper(shape: tuple[int, ...], max_side: int) -> None:
    """One direction at a time: each pair of vectors has its own second moment, which goes with it.

    The first vectors are singular ones of the first gradient, the later ones by Gram and Schmidt.
    """
    b1, b2, every = 0.9, 0.8, 4
    w, m = start(shape), torch.zeros(shape).double()
    sides = [torch.zeros(size, size).double() for size in shape]
    bases = [[*torch.eye(size).double()] for size in shape]
    v: dict[tuple[int, int], float] = dict.fromkeys(
        ((i, j) for i in range(shape[0]) for j in range(shape[1])), 0.0
    )  # by the vectors' first places
    names = [[*range(size)] for size in shape]
    for step, g in enumerate(gradients(shape)):
        for k, outer in enumerate((g @ g.T, g.T @ g)):
            sides[k] = b2 * sides[k] + (1 - b2) * outer
            if shape[k] > max_side:
                continue
            if step == 0:
                left, _, right = torch.linalg.svd(g)
                bases[k] = [*(left.T if k == 0 else right)]
            elif (step + 1) % every == 0:
                quotients = [float(q @ sides[k] @ q) for q in bases[k]]
                ranked = sorted(range(shape[k]), key=lambda i, quotients=quotients: -quotients[i])  # type: ignore[misc]
                names[k], found = [names[k][i] for i in ranked], []
                for i in ranked:
                    one = sides[k] @ bases[k][i]
                    for _ in range(2):
                        one = one - sum((other * float(other @ one) for other in found), torch.zeros_like(one))
                    found.append(one / one.norm())
                bases[k] = found
        m = b1 * m + (1 - b1) * g
        w = w - rate(step) * DECAY * w
        for i, left_vector in zip(names[0], bases[0], strict=True):
            for j, right_vector in zip(names[1], bases[1], strict=True):
                v[i, j] = b2 * v[i, j] + (1 - b2) * float(left_vector @ g @ right_vector) ** 2
                mean = float(left_vector @ m @ right_vector) / (1 - b1 ** (step + 1))
                scaled = mean / (math.sqrt(v[i, j] / (1 - b2 ** (step + 1))) + 1e-8)
                w = w - rate(step) * scaled * torch.outer(left_vector, right_vector)
    mine = ours(soap(b1, b2, basis_every=every, max_side=max_side), shape)[0]
    # The eigenvectors of g gᵀ are less exact than the singular ones of g.
    assert torch.allclose(mine, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_soap_makes_no_leap_when_its_basis_is_renewed(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(32, 16, dtype=torch.float64)
    rule, spectrum = soap(), torch.logspace(0, -2, 32, dtype=torch.float64)
    state, moved = rule.begin(weight), []
    for step in range(60):
        noise = torch.randn(32, 16, generator=generator, dtype=torch.float64)
        gradient = spectrum[:, None] * noise * spectrum[None, ::2]
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (1.0, 0.0, step + 1.0))
        new, state = rule.step(weight, gradient, state, Now(*numbers))
        moved.append(float((new - weight).square().mean().sqrt()))
        weight = new
    for step in range(9, 60, 10):
        assert moved[step] < 1.5 * moved[step - 1], (step, moved[step - 1 : step + 1])


def test_soap_of_a_vector_is_adamw() -> None:
    assert torch.equal(ours(soap(0.9, 0.95), (6,))[0], ours(adam(0.9, 0.95, decoupled=True), (6,))[0])


def test_soap_does_not_care_how_the_axes_lie_and_adam_does() -> None:
    turn = torch.linalg.qr(start((8, 8))).Q
    curvature = torch.diag(torch.logspace(0, 3, 8, dtype=torch.float64))

    def losses(rule: Rule, turn: Tensor) -> list[float]:
        weight, found = turn @ start((8, 8)), []
        state = rule.begin(weight)
        for step in range(100):
            gradient = turn @ curvature @ turn.T @ weight
            found.append(float((weight * gradient).sum()))
            numbers = (torch.tensor(v, dtype=torch.float64) for v in (0.05, 0.0, step + 1.0))
            weight, state = rule.step(weight, gradient, state, Now(*numbers))
        return found

    straight = torch.eye(8, dtype=torch.float64)
    assert losses(soap(), turn) == pytest.approx(losses(soap(), straight), rel=0.02)
    assert losses(adam(), turn) != pytest.approx(losses(adam(), straight), rel=0.1)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_galore_against_its_paper(shape: tuple[int, ...]) -> None:
    """The projection from eigenvectors of G G^T or G^T G, whose signs are free: they are those of ours."""
    b1, b2, every, r, s = 0.8, 0.9, 30, 2, 0.25
    rule = galore(r, b1, b2, scale=s, basis_every=every)
    mine, w = start(shape), start(shape)
    state = rule.begin(mine)
    left = shape[0] <= shape[1]
    m, v, p = 0.0, 0.0, torch.zeros(min(shape), r).double()
    for step, g in enumerate(gradients(shape)):
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (rate(step), DECAY, step + 1.0))
        mine, state = rule.step(mine, g, state, Now(*numbers))
        if step % every == 0:
            vectors = torch.linalg.eigh(g @ g.T if left else g.T @ g).eigenvectors.flip(-1)[:, :r]
            p = vectors * (vectors * state["projection"]).sum(0).sign()
        small = p.T @ g if left else g @ p
        m = b1 * m + (1 - b1) * small
        v = b2 * v + (1 - b2) * small**2
        n = (m / (1 - b1 ** (step + 1))) / ((v / (1 - b2 ** (step + 1))).sqrt() + 1e-8)
        w = w - rate(step) * DECAY * w - rate(step) * s * (p @ n if left else n @ p.T)
        assert torch.allclose(mine, w, rtol=1e-8, atol=1e-10), step


def test_galore_moves_a_matrix_within_its_projection_only() -> None:
    rule, gradient = galore(3, scale=1.0), start((6, 9))
    weight = torch.zeros(6, 9).double()
    now = Now(*(torch.tensor(v, dtype=torch.float64) for v in (0.1, 0.0, 1.0)))
    moved, state = rule.step(weight, gradient, rule.begin(weight), now)
    p = state["projection"]
    assert torch.allclose(p.T @ p, torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(p @ p.T @ moved, moved, atol=1e-12)
    assert torch.linalg.matrix_rank(moved) == 3
    kept, best = (p.T @ gradient).norm() ** 2, (torch.linalg.svdvals(gradient)[:3] ** 2).sum()
    assert float(kept) == pytest.approx(float(best)), "no other projection of this rank keeps more"
    assert torch.allclose(principal(gradient, 3), p)


def test_galore_of_what_is_not_projected_is_adamw() -> None:
    assert torch.equal(ours(galore(2), (6,))[0], ours(adam(decoupled=True), (6,))[0])
    assert torch.equal(ours(galore(5), (7, 5))[0], ours(adam(decoupled=True), (7, 5))[0])
    assert [projected_rank(shape, 4) for shape in ((8, 5), (4, 9), (9, 3), (9,), (2, 9, 9))] == [4, None, None] + [
        None
    ] * 2
    assert [projected_rank(shape, 0.25) for shape in ((64, 100), (100, 10), (2, 9), (1, 9))] == [16, 2, 1, None]


RULES: dict[str, Rule] = {
    "galore": galore(16),
    "sophia": sophia(),
    "adam": adam(),
    "sgd": sgd(),
    "lion": lion(),
    "adafactor": adafactor(),
    "lamb": lamb(),
    "muon": muon(),
    "schedule_free_adamw": schedule_free_adamw(),
    "soap": soap(),
}
BYTES = {"adam": 8, "sgd": 4, "lion": 4, "adafactor": 0, "lamb": 8, "muon": 4, "schedule_free_adamw": 8, "soap": 24}
BYTES["sophia"] = 8
BYTES["galore"] = (8 * 16 * 64 + 4 * 16 * 64) / 64**2


@pytest.mark.parametrize("name", RULES)
def test_memory_of_the_state(name: str) -> None:
    """Bytes a parameter of a square matrix, as the registry says."""
    weight = torch.zeros(64, 64)
    held = sum(slot.numel() * slot.element_size() for slot in RULES[name].begin(weight).values())
    assert held / weight.numel() == pytest.approx(BYTES[name], abs=0.2)


@pytest.mark.parametrize("name", RULES)
def test_functions_change_none_of_their_arguments(name: str) -> None:
    rule, weight, gradient = RULES[name], start((5, 4)), start((5, 4))
    state = rule.begin(weight)
    before = {slot: tensor.clone() for slot, tensor in state.items()}
    numbers = (torch.tensor(v, dtype=torch.float64) for v in (0.1, 0.1, 1.0))
    moved, kept = rule.step(weight, gradient, state, Now(*numbers))
    assert torch.equal(weight, start((5, 4)))
    assert torch.equal(gradient, start((5, 4)))
    assert all(torch.equal(state[slot], tensor) for slot, tensor in before.items())
    assert kept.keys() == state.keys()
    assert not torch.equal(moved, weight)
