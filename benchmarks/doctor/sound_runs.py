"""Small real runs by plain loops that are sound and look as if they were not: what the doctor says of each.

    python benchmarks/doctor/sound_runs.py [--keep DIR] [--only KIND …] [--seeds 3] [--pack FILE]

Games whose loss rises as it is learned, rewards that grow, objectives of several terms that are judged by one, weak
relations, losses that are smoothed before they are logged, rates that die away, validation losses that turn up by next
to nothing. A false alarm is any finding that is a warning or worse. `--pack` writes the logs of the first seeds into
one compressed file, which is what `tests/doctor/test_sound_runs.py` reads.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import math
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.load import open_foreign_case

Row = dict[str, float]
Kind = Callable[[int], Iterator[Row]]
torch.set_num_threads(1)


def perceptron(*widths: int, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(before, after))
        if index < len(widths) - 2:
            layers += [activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def split(name: str, seed: int, held_out: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and targets of a table of scikit-learn in standard units: training, then validation."""
    table = {"digits": load_digits, "wine": load_wine, "cancer": load_breast_cancer, "diabetes": load_diabetes}[name]()
    order = np.random.default_rng(seed).permutation(len(table.target))
    x = torch.tensor(table.data[order], dtype=torch.float32)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    y = torch.tensor(table.target[order])
    if name == "diabetes":
        y = ((y - y.mean()) / y.std()).float()
    cut = round(len(x) * (1 - held_out))
    return x[:cut], y[:cut], x[cut:], y[cut:]


def trained(
    model: nn.Module,
    data: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    steps: int,
    rate: float,
    batch: int = 32,
    every: int = 5,
    evaluate: int = 50,
    adam: bool = True,
    decay: float = 0.0,
    factor: Callable[[float], float] = lambda part: 0.5 + 0.5 * math.cos(math.pi * part),
    objective: Callable[[nn.Module, Tensor, Tensor, float], Tensor] | None = None,
    by_epoch: bool = False,
    smoothing: float = 0.0,
    accuracy: bool = True,
    rates: bool = True,
) -> Iterator[Row]:
    """A supervised run: a row each `every` steps, or each epoch; the loss of training is the mean since the last row,
    or that of an exponential average."""
    x, y, vx, vy = data
    regression = y.is_floating_point()

    def plain(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output.squeeze(-1), target) if regression else F.cross_entropy(output, target)

    kind = torch.optim.AdamW if adam else torch.optim.SGD
    options = {"weight_decay": decay} | ({} if adam else {"momentum": 0.9})
    optimizer = kind(model.parameters(), rate, **options)
    per_epoch, order = max(1, len(x) // batch), torch.randperm(len(x))
    every = per_epoch if by_epoch else every
    evaluate = per_epoch if by_epoch else evaluate
    losses: list[float] = []
    average = math.nan
    for step in range(1, steps + 1):
        if (step - 1) % per_epoch == 0:
            order = torch.randperm(len(x))
        rows = order[((step - 1) % per_epoch) * batch :][:batch]
        for group in optimizer.param_groups:
            group["lr"] = rate * factor((step - 1) / steps)
        model.train()
        part = step / steps
        loss = objective(model, x[rows], y[rows], part) if objective else plain(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        average = losses[-1] if math.isnan(average) else smoothing * average + (1 - smoothing) * losses[-1]
        if step % every:
            continue
        at = {"epoch": step // per_epoch} if by_epoch else {"step": step}
        row: Row = {**at, "train_loss": average if smoothing else float(np.mean(losses[-every:]))}
        if rates:
            row["lr"] = optimizer.param_groups[0]["lr"]
        if step % evaluate == 0:
            model.eval()
            with torch.no_grad():
                output = model(vx)
            row["val_loss"] = float(plain(output, vy))
            if accuracy and not regression:
                row["val_accuracy"] = float((output.argmax(-1) == vy).float().mean())
        yield row


def ring(number: int) -> Tensor:
    """Points near eight places on a circle."""
    angle = torch.randint(8, (number,)) * math.pi / 4
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(number, 2)


def _game(seed: int, column: str, *, wasserstein: bool = False) -> Iterator[Row]:
    generator, critic = perceptron(8, 64, 64, 2), perceptron(2, 64, 64, 1, activation=nn.GELU)
    of_g = torch.optim.Adam(generator.parameters(), 1e-3, (0.5, 0.9))
    of_d = torch.optim.Adam(critic.parameters(), 1e-3, (0.5, 0.9))
    for step in range(1, 1501):
        real, fake = ring(64), generator(torch.randn(64, 8))
        if wasserstein:
            between = (real + torch.rand(64, 1) * (fake.detach() - real)).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            lost = critic(fake.detach()).mean() - critic(real).mean() + 3.0 * (slope.norm(dim=1) - 1).square().mean()
        else:
            lost = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        of_d.zero_grad()
        lost.backward()
        of_d.step()
        answer = critic(fake)
        won = -answer.mean() if wasserstein else F.softplus(-answer).mean()
        of_g.zero_grad()
        won.backward()
        of_g.step()
        if step % 10 == 0:
            yield {
                "step": step,
                column: float(won.detach()),
                "d_loss" if column != "d_loss" else "g_loss": float(lost.detach()),
            }


def generator(seed: int) -> Iterator[Row]:
    """The loss of a generator, against a discriminator that learns as well."""
    return _game(seed, "loss")


def discriminator(seed: int) -> Iterator[Row]:
    """The same, with the discriminator's loss as that which is logged as the loss: it rises to ln 4."""
    for row in _game(seed, "g_loss"):
        yield {"step": row["step"], "loss": row["d_loss"], "g_loss": row["g_loss"]}


def critic(seed: int) -> Iterator[Row]:
    """The loss of a critic: it falls below 0 first, and rises towards it as the generator learns."""
    for row in _game(seed, "g_loss", wasserstein=True):
        yield {"step": row["step"], "train/loss": row["d_loss"], "train/g_loss": row["g_loss"]}


def corridor(seed: int) -> Iterator[Row]:
    """A Q function: there is nothing to predict until the reward at the end of a corridor was found."""
    draw = np.random.default_rng(seed)
    net, target = perceptron(12, 48, 2), perceptron(12, 48, 2)
    target.load_state_dict(net.state_dict())
    with torch.no_grad():
        net[-1].weight.mul_(0.05)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    memory: list[tuple[int, int, float, int, bool]] = []
    place, total, returns, losses = 0, 0.0, [0.0], []
    one = torch.eye(12)
    for step in range(1, 3001):
        greedy = draw.random() > max(0.1, 1 - step / 1500)
        action = int(net(one[place]).argmax()) if greedy else int(draw.integers(2))
        after = min(max(place + (1 if action else -1), 0), 11)
        reward = 10.0 if after == 11 else -0.01
        memory.append((place, action, reward, after, after == 11))
        total, place = total + reward, after
        if after == 11 or step % 100 == 0:
            returns.append(total)
            place, total = 0, 0.0
        batch = [memory[i] for i in draw.integers(max(0, len(memory) - 2000), len(memory), 32)]
        at, did, got, then, done = (torch.tensor(column) for column in zip(*batch, strict=True))
        with torch.no_grad():
            aim = got + 0.95 * target(one[then]).max(1).values * ~done
        loss = F.smooth_l1_loss(net(one[at])[torch.arange(32), did], aim.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 200 == 0:
            target.load_state_dict(net.state_dict())
        if step % 20 == 0:
            yield {"step": step, "loss": float(np.mean(losses[-20:])), "return": float(np.mean(returns[-5:]))}


def actor(seed: int, *, value: bool = False) -> Iterator[Row]:
    """A policy by its gradient, with a critic: the policy's loss is around 0, the critic's grows with the returns."""
    policy, judge = perceptron(4, 32, 2), perceptron(4, 32, 1)
    optimizer = torch.optim.Adam([*policy.parameters(), *judge.parameters()], 3e-3)
    for step in range(1, 401):
        states, actions, rewards = [], [], []
        state, alive = 0.1 * torch.randn(16, 4), torch.ones(16)
        for _ in range(40):  # a pole on a cart, roughly
            drawn = torch.distributions.Categorical(logits=policy(state)).sample()
            states.append(state)
            actions.append(drawn)
            x, v, a, w = state.unbind(1)
            push = 2.0 * drawn - 1.0
            w = w + 0.2 * (2.0 * a.sin() - push * 0.8) + 0.02 * torch.randn(16)
            a = a + 0.2 * w
            v = v + 0.2 * push
            state = torch.stack([x + 0.2 * v, v, a, w], 1).clamp(-3, 3)
            alive = alive * (a.abs() < 0.6)
            rewards.append(alive)
        back, returns = torch.zeros(16), []
        for reward in reversed(rewards):
            back = reward + 0.97 * back
            returns.append(back)
        expected = torch.stack(returns[::-1])
        seen = torch.stack(states)
        guess = judge(seen).squeeze(-1)
        gain = expected - guess.detach()
        chosen = torch.distributions.Categorical(logits=policy(seen)).log_prob(torch.stack(actions))
        of_policy = -(chosen * gain / (gain.std() + 1e-6)).mean()
        of_value = F.mse_loss(guess, expected)
        optimizer.zero_grad()
        (of_policy + 0.5 * of_value).backward()
        optimizer.step()
        told = {"loss": float(of_value.detach()), "policy_loss": float(of_policy.detach())}
        if not value:
            told = {"loss": float(of_policy.detach()), "value_loss": float(of_value.detach())}
        yield {"step": step, **told, "return": float(torch.stack(rewards).sum(0).mean())}


def value_function(seed: int) -> Iterator[Row]:
    """The same, with the critic's loss as that which is logged as the loss."""
    return actor(seed, value=True)


def annealed(seed: int) -> Iterator[Row]:
    """A variational autoencoder whose second term is let in bit by bit: its loss rises by plan."""
    x = split("digits", seed)[0]
    encoder, decoder = perceptron(64, 96, 16), perceptron(8, 96, 64)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    for step in range(1, 1001):
        rows = x[torch.randint(len(x), (64,))]
        mean, log_variance = encoder(rows).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        loss = (decoder(code) - rows).square().sum(1).mean() + min(1.0, step / 700) * 4.0 * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            yield {"step": step, "loss": float(loss.detach()), "kl": float(divergence.detach())}


def distilled(seed: int) -> Iterator[Row]:
    """A student whose training loss is that of a teacher's soft answers, several times the one that is judged."""
    data = split("digits", seed)
    teacher = perceptron(64, 128, 10)
    for _ in trained(teacher, data, steps=400, rate=3e-3):
        pass
    teacher.eval()

    def objective(model: nn.Module, x: Tensor, y: Tensor, part: float) -> Tensor:
        output, heat = model(x), 4.0
        with torch.no_grad():
            soft = (teacher(x) / heat).softmax(-1)
        apart = F.kl_div((output / heat).log_softmax(-1), soft, reduction="batchmean") * heat**2
        return F.cross_entropy(output, y) + (2.0 + seed % 3) * apart

    return trained(perceptron(64, 24, 10), data, steps=900, rate=1e-3, objective=objective)


def auxiliary(seed: int) -> Iterator[Row]:
    """Deep supervision: three more heads are asked the same, and their losses are added; one alone is judged."""
    data = split("digits", seed)

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))
            self.heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            self.asked = []
            for layer, head in zip(self.layers, self.heads, strict=True):
                x = x + F.relu(layer(x))
                self.asked.append(head(x))
            return self.asked[-1]

    def objective(model: nn.Module, x: Tensor, y: Tensor, part: float) -> Tensor:
        model(x)
        return torch.stack([F.cross_entropy(one, y) for one in model.asked]).sum()

    return trained(Deep(), data, steps=500, rate=3e-4, objective=objective)


def weak_regression(seed: int) -> Iterator[Row]:
    """Targets of which inputs tell a twentieth."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(6000, 10, generator=draw)
    y = 0.23 * x[:, 0] + torch.randn(6000, generator=draw)
    data = x[:4500], y[:4500], x[4500:], y[4500:]
    return trained(perceptron(10, 16, 1), data, steps=420, rate=2e-3, decay=0.1)


def weak_classes(seed: int, num_classes: int = 2) -> Iterator[Row]:
    """Classes of which inputs tell little, as whether a price rises tomorrow."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(8000, 12, generator=draw)
    logits = torch.zeros(8000, num_classes)
    logits[:, 0] = 0.35 * x[:, 0] + 0.2 * x[:, 1]
    y = torch.distributions.Categorical(logits=logits).sample()
    data = x[:6000], y[:6000], x[6000:], y[6000:]
    return trained(perceptron(12, 16, num_classes), data, steps=700, rate=1e-3, decay=0.1)


def weak_of_five(seed: int) -> Iterator[Row]:
    """The same with five classes."""
    return weak_classes(seed, 5)


def diabetes(seed: int) -> Iterator[Row]:
    """A small table of patients, by epochs."""
    return trained(perceptron(10, 24, 1), split("diabetes", seed), steps=600, rate=1e-3, by_epoch=True)


def smoothed(seed: int) -> Iterator[Row]:
    """A loss that is averaged exponentially before it is logged: its noise comes and goes over many rows."""
    return trained(
        perceptron(64, 48, 10), split("digits", seed), steps=800, rate=6e-4, batch=12, every=2, smoothing=0.97
    )


def chapters(seed: int) -> Iterator[Row]:
    """One pass over samples whose difficulty changes slowly, as when a book is read: noise of neighbours is alike."""
    draw = np.random.default_rng(seed)
    net = perceptron(10, 32, 1)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    rough = 0.0
    losses = []
    for step in range(1, 2001):
        rough = 0.97 * rough + 0.24 * 0.5 * draw.normal()
        x = torch.rand(32, 10)
        y = 3 * torch.sin(math.pi * x[:, 0] * x[:, 1]) + 2 * x[:, 2] + math.exp(0.6 * rough) * 0.7 * torch.randn(32)
        loss = F.mse_loss(net(x).squeeze(-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 4 == 0:
            yield {"step": step, "loss": float(np.mean(losses[-4:])), "lr": 1e-3}


def dying_rate(seed: int) -> Iterator[Row]:
    """A rate that dies away over a long time, as the gains do."""
    return trained(
        perceptron(64, 32, 10),
        split("digits", seed),
        steps=1000,
        rate=0.02,
        adam=False,
        evaluate=40,
        factor=lambda part: (1 - part) ** 2,
    )


def linear_model(seed: int) -> Iterator[Row]:
    """Logistic regression by plain descent: it creeps on and on, as convex losses do."""
    return trained(
        nn.Linear(64, 10),
        split("digits", seed),
        steps=1200,
        rate=0.01,
        adam=False,
        factor=lambda part: 1.0,
        evaluate=60,
    )


def fine_tuned(seed: int) -> Iterator[Row]:
    """A model that knows its task already, on some more of it, at a small rate: little is left to be learned."""
    x, y, vx, vy = split("digits", seed)
    net = perceptron(64, 64, 10)
    for _ in trained(net, (x[:800], y[:800], vx, vy), steps=150, rate=2e-3):
        pass
    return trained(net, (x[800:], y[800:], vx, vy), steps=400, rate=5e-5, evaluate=25)


def turned_up_by_little(seed: int) -> Iterator[Row]:
    """The best evaluation is past, and it costs next to nothing: no answer is worse."""
    return trained(perceptron(30, 32, 2), split("cancer", seed), steps=500, rate=8e-4, evaluate=20, decay=0.05)


def wine(seed: int) -> Iterator[Row]:
    """A small table, learned in no time, by epochs."""
    return trained(perceptron(13, 16, 3), split("wine", seed), steps=360, rate=3e-3, batch=8, by_epoch=True)


def wide_gap(seed: int) -> Iterator[Row]:
    """Few samples for a wide model: a gap is there from the first evaluation on, and both losses fall."""
    x, y, vx, vy = split("digits", seed)
    return trained(perceptron(64, 256, 10), (x[:150], y[:150], vx, vy), steps=300, rate=1e-3, evaluate=20, decay=0.5)


def descends_twice(seed: int) -> Iterator[Row]:
    """Features of two scales: the quick ones are learned too well before the slow ones come, and it falls again."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 60, generator=draw)
    x[:, 20:] *= 0.06
    weights = torch.cat([torch.ones(20) * 0.15, torch.ones(40) * 4.0])
    y = x @ weights + 0.3 * torch.randn(400, generator=draw)
    data = x[:70], y[:70], x[70:], y[70:]
    return trained(
        nn.Linear(60, 1),
        data,
        steps=6000,
        rate=0.02,
        batch=35,
        adam=False,
        every=20,
        evaluate=100,
        factor=lambda part: 1.0,
    )


def likelihood(seed: int) -> Iterator[Row]:
    """The negative logarithm of a density: it goes below 0, where no part of a level means anything."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(4000, 6, generator=draw)
    y = torch.sin(3 * x[:, 0]) + x[:, 1] + 0.05 * torch.randn(4000, generator=draw)
    net = perceptron(6, 48, 2)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)

    def lost(rows: Tensor) -> Tensor:
        mean, log_scale = net(x[rows]).unbind(1)
        return (log_scale + 0.5 * ((y[rows] - mean) / log_scale.exp()).square()).mean()

    for step in range(1, 801):
        loss = lost(torch.randint(3200, (48,)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * step / 800))
        if step % 5 == 0:
            row = {"step": step, "train_loss": float(loss.detach()), "lr": optimizer.param_groups[0]["lr"]}
            if step % 50 == 0:
                with torch.no_grad():
                    row["val_loss"] = float(lost(torch.arange(3200, 4000)))
            yield row


def harder_by_plan(seed: int) -> Iterator[Row]:
    """A curriculum: sums of two digits, then of four, six and eight; each new stage lifts the loss."""
    net = perceptron(8, 96, 96, 1)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for step in range(1, 1601):
        stage = 2 * (1 + (step - 1) // 400)
        x = torch.zeros(64, 8)
        x[:, :stage] = torch.rand(64, stage)
        y = (x[:, 0::2] * x[:, 1::2]).sum(1) * 4
        loss = F.mse_loss(net(x).squeeze(-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 4 == 0:
            yield {"step": step, "loss": float(loss.detach()), "lr": 1e-3, "stage": stage}


def boosted(seed: int) -> Iterator[Row]:
    """Trees that are added one by one at a small rate: each takes as much off as the one before."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.metrics import log_loss

    x, y, vx, vy = (one.numpy() for one in split("cancer", seed))
    model = GradientBoostingClassifier(
        n_estimators=200, learning_rate=0.02, max_depth=2, subsample=0.7, random_state=seed
    )
    model.fit(x, y)
    stages = zip(model.staged_predict_proba(x), model.staged_predict_proba(vx), strict=True)
    for number, (seen, new) in enumerate(stages, 1):
        yield {"iteration": number, "train_loss": log_loss(y, seen), "valid_loss": log_loss(vy, new)}


KINDS: Final[dict[str, Kind]] = {
    kind.__name__.replace("_", "-"): kind
    for kind in (
        generator, discriminator, critic, corridor, actor, value_function, annealed, distilled, auxiliary,
        weak_regression, weak_classes, weak_of_five, diabetes, smoothed, chapters, dying_rate, linear_model, fine_tuned,
        turned_up_by_little, wine, wide_gap, descends_twice, likelihood, harder_by_plan, boosted,
    )
}  # fmt: skip


def written(rows: Sequence[Row], file: Path) -> Path:
    """The table with all columns that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    told = io.StringIO()
    lines = csv.writer(told, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([f"{row[name]:.5g}" if name in row else "" for name in columns] for row in rows)
    file.write_text(told.getvalue(), encoding="utf-8")
    return file


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=KINDS, help="may be given several times")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="put the logs into a file (.tar.xz)")
    given = parser.parse_args()
    alarms, number = 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in given.only or KINDS:
            for seed in range(given.seeds):
                file = folder / f"{kind}-{seed}.csv"
                if not file.exists():
                    torch.manual_seed(1000 + seed)
                    written([{k: float(v) for k, v in row.items()} for row in KINDS[kind](seed)], file)
                said: list[Any] = list(diagnose(open_foreign_case(file)[0]).findings)
                loud = [one for one in said if one.severity != "info"]
                alarms, number = alarms + bool(loud), number + 1
                told = [f"{one.code} ({one.severity} {one.confidence:.2f} @{one.onset_step})" for one in said]
                print(f"{'ALARM' if loud else 'quiet'}  {file.stem:<26}{'; '.join(told)}", flush=True)
        print(f"{alarms} of {number} raise an alarm")
        if given.pack:
            with tarfile.open(given.pack, "w:xz", preset=9) as archive:
                for file in sorted(folder.glob("*.csv")):
                    content = file.read_bytes()
                    entry = tarfile.TarInfo(file.name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    sys.exit(main())
