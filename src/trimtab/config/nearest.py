"""What somebody most likely meant: the nearest keys, choices and names to one that does not exist."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

SYNONYMS: dict[str, tuple[str, ...]] = {
    "activation_checkpointing": ("training.recompute",),
    "adam_epsilon": ("optimizer.epsilon",),
    "alpha": ("optimizer.learning_rate",),
    "amp": ("training.precision",),
    "attention_mask": ("model.document_mask",),
    "attn_dropout": ("model.dropout.attention",),
    "attn_pdrop": ("model.dropout.attention",),
    "autocast": ("training.precision",),
    "batch": ("training.micro_batch_size",),
    "batch_size": ("training.micro_batch_size",),
    "batch_size_per_device": ("training.micro_batch_size",),
    "batch_size_schedule": ("training.accumulation_schedule",),
    "bf16": ("training.precision",),
    "block_diagonal_attention": ("model.document_mask",),
    "block_size": ("data.sequence_length",),
    "bs": ("training.micro_batch_size",),
    "checkpoint_every": ("checkpoint.every",),
    "clip_grad": ("gradients.clip.threshold",),
    "clip_grad_norm": ("gradients.clip.threshold",),
    "clip_norm": ("gradients.clip.threshold",),
    "clip_threshold": ("gradients.clip.threshold",),
    "clip_value": ("gradients.clip.threshold",),
    "clipping": ("gradients.clip",),
    "context_length": ("data.sequence_length",),
    "context_size": ("data.sequence_length",),
    "corpus": ("data.source",),
    "criterion": ("objective",),
    "cross_document_attention": ("model.document_mask",),
    "d_ff": ("model.feed_forward_size",),
    "d_model": ("model.hidden_size",),
    "dataset": ("data.source",),
    "decay_steps": ("schedule.decay",),
    "depth": ("model.num_layers",),
    "dim": ("model.hidden_size",),
    "doc_mask": ("model.document_mask",),
    "drop_path": ("model.dropout.layer",),
    "drop_path_rate": ("model.dropout.layer",),
    "drop_rate": ("model.dropout",),
    "dropout": ("model.dropout",),
    "dropout_rate": ("model.dropout",),
    "dtype": ("training.precision",),
    "early_stopping": ("stopping",),
    "ema": ("averaging",),
    "ema_decay": ("averaging.decay",),
    "embd_pdrop": ("model.dropout.embedding",),
    "embed_dim": ("model.hidden_size",),
    "embedding_size": ("model.hidden_size",),
    "epochs": ("training.steps",),
    "eps": ("optimizer.epsilon",),
    "eta_min": ("schedule.floor",),
    "eval_batch_size": ("evaluation.batch_size",),
    "eval_every": ("evaluation.every",),
    "eval_interval": ("evaluation.every",),
    "eval_iters": ("evaluation.max_tokens",),
    "eval_steps": ("evaluation.every",),
    "ffn_dim": ("model.feed_forward_size",),
    "float8": ("training.precision",),
    "fp16": ("training.precision",),
    "fp8": ("training.precision",),
    "grad_accum": ("training.accumulation",),
    "grad_accum_steps": ("training.accumulation",),
    "grad_clip": ("gradients.clip.threshold",),
    "grad_norm": ("gradients.clip.threshold",),
    "gradient_accumulation": ("training.accumulation",),
    "gradient_accumulation_steps": ("training.accumulation",),
    "gradient_checkpointing": ("training.recompute",),
    "gradient_clip_val": ("gradients.clip.threshold",),
    "gradient_clipping": ("gradients.clip",),
    "heads": ("model.num_heads",),
    "hidden_act": ("model.activation",),
    "hidden_dim": ("model.hidden_size",),
    "init_std": ("model.initialization.standard_deviation",),
    "initializer_range": ("model.initialization.standard_deviation",),
    "intermediate_size": ("model.feed_forward_size",),
    "intra_document_mask": ("model.document_mask",),
    "layer_norm": ("model.norm",),
    "layer_norm_eps": ("model.norm.epsilon",),
    "layer_norm_epsilon": ("model.norm.epsilon",),
    "layers": ("model.num_layers", "logging.layers"),
    "log_every": ("logging.every",),
    "log_interval": ("logging.every",),
    "logger": ("logging",),
    "logging_steps": ("logging.every",),
    "loss": ("objective",),
    "lr": ("optimizer.learning_rate",),
    "lr_scaling": ("optimizer.batch_scaling",),
    "lr_scheduler": ("schedule",),
    "lr_scheduler_type": ("schedule.name",),
    "mask": ("model.document_mask",),
    "max_epochs": ("training.steps",),
    "max_grad_norm": ("gradients.clip.threshold",),
    "max_iters": ("training.steps",),
    "max_length": ("data.sequence_length",),
    "max_lr": ("optimizer.learning_rate",),
    "max_position_embeddings": ("model.max_positions",),
    "max_seq_len": ("data.sequence_length",),
    "max_seq_length": ("data.sequence_length",),
    "max_steps": ("training.steps",),
    "microbatch": ("training.micro_batch_size",),
    "min_lr": ("schedule.floor",),
    "mixed_precision": ("training.precision",),
    "mlp_dim": ("model.feed_forward_size",),
    "n_ctx": ("data.sequence_length",),
    "n_embd": ("model.hidden_size",),
    "n_head": ("model.num_heads",),
    "n_heads": ("model.num_heads",),
    "n_inner": ("model.feed_forward_size",),
    "n_kv_head": ("model.num_kv_heads",),
    "n_kv_heads": ("model.num_kv_heads",),
    "n_layer": ("model.num_layers",),
    "n_layers": ("model.num_layers",),
    "n_positions": ("model.max_positions",),
    "num_attention_heads": ("model.num_heads",),
    "num_epochs": ("training.steps",),
    "num_hidden_layers": ("model.num_layers",),
    "num_iterations": ("training.steps",),
    "num_key_value_heads": ("model.num_kv_heads",),
    "num_steps": ("training.steps",),
    "num_threads": ("training.threads",),
    "num_train_epochs": ("training.steps",),
    "num_train_steps": ("training.steps",),
    "num_warmup_steps": ("schedule.warmup",),
    "outliers": ("recovery.spikes",),
    "pack": ("model.document_mask", "data.sequence_length"),
    "packing": ("model.document_mask", "data.sequence_length"),
    "per_device_train_batch_size": ("training.micro_batch_size",),
    "pos_emb": ("model.positions",),
    "position_embedding": ("model.positions",),
    "random_seed": ("seed",),
    "reduce_lr_on_plateau": ("control.learning_rate",),
    "reduce_on_plateau": ("control.learning_rate",),
    "reset_attention_mask": ("model.document_mask",),
    "resid_dropout": ("model.dropout.residual",),
    "resid_pdrop": ("model.dropout.residual",),
    "rms_norm_eps": ("model.norm.epsilon",),
    "rope_base": ("model.positions.base",),
    "rope_theta": ("model.positions.base",),
    "run_name": ("name",),
    "sample_packing": ("model.document_mask", "data.sequence_length"),
    "save_every": ("checkpoint.every",),
    "save_steps": ("checkpoint.every",),
    "save_total_limit": ("checkpoint.keep_latest",),
    "scheduler": ("schedule",),
    "seq_len": ("data.sequence_length",),
    "smoothing": ("objective.label_smoothing",),
    "swa": ("averaging",),
    "swa_epoch_start": ("averaging.start",),
    "swa_start": ("averaging.start",),
    "tie_embeddings": ("model.tied_embeddings",),
    "tie_word_embeddings": ("model.tied_embeddings",),
    "torch_compile": ("training.compile",),
    "total_steps": ("training.steps",),
    "train_steps": ("training.steps",),
    "use_bias": ("model.bias",),
    "val_fraction": ("data.validation_fraction",),
    "val_split": ("data.validation_fraction",),
    "vocab": ("data.tokenizer.vocabulary_size",),
    "vocab_size": ("data.tokenizer.vocabulary_size",),
    "warmup_iters": ("schedule.warmup",),
    "warmup_ratio": ("schedule.warmup",),
    "warmup_steps": ("schedule.warmup",),
    "wd": ("optimizer.weight_decay",),
    "weight_tying": ("model.tied_embeddings",),
    "width": ("model.hidden_size",),
}
"""Names of other trainers and papers, and the keys that mean the same here."""

REMARKS: dict[str, str] = dict.fromkeys(
    ("epochs", "max_epochs", "num_epochs", "num_train_epochs"),
    "An epoch is so many steps: tokens to train on / (training.micro_batch_size * training.accumulation * "
    "data.sequence_length). The line 'plan' of a run says how many epochs its steps are.",
)
"""What to know of names whose value is not that of the key."""

ABBREVIATIONS: dict[str, str] = {
    "accum": "accumulation",
    "act": "activation",
    "attn": "attention",
    "ckpt": "checkpoint",
    "dir": "path",
    "emb": "embedding",
    "embd": "embedding",
    "embeds": "embeddings",
    "embs": "embeddings",
    "eps": "epsilon",
    "eval": "evaluation",
    "ff": "feed forward",
    "ffn": "feed forward",
    "freq": "every",
    "frequency": "every",
    "grad": "gradient",
    "grads": "gradients",
    "hid": "hidden",
    "init": "initialization",
    "interval": "every",
    "len": "length",
    "ln": "norm",
    "log": "logging",
    "loss": "objective",
    "lr": "learning rate",
    "mb": "micro batch",
    "mlp": "feed forward",
    "n": "num",
    "opt": "optimizer",
    "optim": "optimizer",
    "pos": "positions",
    "resid": "residual",
    "sched": "schedule",
    "scheduler": "schedule",
    "seq": "sequence",
    "std": "standard deviation",
    "stop": "stopping",
    "temp": "temperature",
    "tok": "tokens",
    "train": "training",
    "trainer": "training",
    "val": "validation",
    "valid": "validation",
    "vocab": "vocabulary",
    "wd": "weight decay",
}
"""Words as they are cut short in other code, and whole."""

VALUE_SYNONYMS: dict[str, tuple[str, ...]] = {
    "16": ("fp16",),
    "16_mixed": ("fp16",),
    "32": ("fp32",),
    "absolute": ("learned",),
    "adamw_torch": ("adamw",),
    "bf16_mixed": ("bf16",),
    "bfloat16": ("bf16",),
    "byte": ("bytes",),
    "char": ("bytes",),
    "clm": ("causal_lm",),
    "constant_with_warmup": ("constant",),
    "cosine_annealing": ("cosine",),
    "cosine_annealing_warm_restarts": ("warm_restarts",),
    "cosine_with_restarts": ("warm_restarts",),
    "cosine_with_warmup": ("cosine",),
    "cross_entropy_loss": ("cross_entropy",),
    "cyclic": ("triangular",),
    "early_stopping": ("patience",),
    "false": ("off", "none"),
    "float": ("fp32",),
    "float16": ("fp16",),
    "float32": ("fp32",),
    "folder": ("text",),
    "gpt": ("decoder",),
    "gpt2": ("decoder",),
    "gpu": ("cuda",),
    "half": ("fp16",),
    "inverse_sqrt": ("inverse_square_root",),
    "json": ("jsonl",),
    "language_modeling": ("causal_lm",),
    "linear_with_warmup": ("linear",),
    "llama": ("decoder",),
    "lm": ("causal_lm",),
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "no": ("off", "none"),
    "null": ("none",),
    "off": ("none",),
    "postnorm": ("post",),
    "prenorm": ("pre",),
    "relu": ("relu_squared",),
    "relu2": ("relu_squared",),
    "rope": ("rotary",),
    "schedule_free": ("schedule_free_adamw",),
    "silu": ("swiglu",),
    "sine": ("sinusoidal",),
    "transformer": ("decoder",),
    "trapezoidal": ("wsd",),
    "true": ("on",),
    "txt": ("text",),
    "warmup_stable_decay": ("wsd",),
    "yes": ("on",),
}
"""Choices by the names that other code gives them."""

_ELSEWHERE = 0.9
"""What a likeness to a key of another section is worth."""
_LEAST = 0.62
"""Names that are less alike are not suggested."""
_TIE = 0.02
_MOST = 3
_LONGEST = 80
"""A longer name is no misspelling of anything."""


def words(name: str) -> list[str]:
    """The words of a name in snake_case, kebab-case, camelCase or with dots; abbreviations made whole."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    parts = [part for part in re.split(r"[^a-z0-9]+", plain.lower()) if part]
    return [word for part in parts for word in ABBREVIATIONS.get(part, part).split()]


def squash(name: str) -> str:
    """The letters and digits of a name, lower case."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


def edit_distance(a: str, b: str) -> int:
    """Fewest letters to drop, add, replace or swap with their neighbour to get from `a` to `b`.

    Source: Damerau 1964, restricted to one edit of each letter (optimal string alignment).
    """
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def likeness(a: str, b: str) -> float:
    """How alike two names are, from 0 to 1 (the same but for case, hyphens and underscores)."""
    short, long = squash(a), squash(b)
    if short == long:
        return 1.0
    words_a, words_b = words(a), words(b)
    if "".join(words_a) == "".join(words_b):
        return 0.98
    longest = max(len(short), len(long), 1)
    distance = edit_distance(short, long)
    best = 1.0 - distance / longest if distance <= max(1, longest // 3) else 0.0
    if len(words_a) == len(words_b) and all(
        y.startswith(x) and len(x) > 1 for x, y in zip(words_a, words_b, strict=True)
    ):
        best = max(best, 0.85)
    shared = len(set(words_a) & set(words_b))
    return max(best, 0.9 * shared / max(1, len(set(words_a) | set(words_b))))


def _best(scores: Mapping[str, float]) -> list[str]:
    top = max(scores.values(), default=0.0)
    near = [name for name, score in scores.items() if score >= max(_LEAST, top - _TIE)]
    return sorted(near, key=lambda name: -scores[name])[:_MOST]


def nearest_keys(section: tuple[str, ...], key: str, here: Iterable[str], everywhere: Iterable[str]) -> list[str]:
    """The dotted paths that `key` in `section` most likely means, at most three, best first.

    `here` are the keys that the section has, `everywhere` the paths of all keys.
    """
    if not squash(key) or len(key) > _LONGEST:
        return []
    prefix = "".join(f"{part}." for part in section)
    scores = {prefix + name: likeness(key, name) for name in here}
    for path in everywhere:
        score = _ELSEWHERE * likeness(key, path.rsplit(".", 1)[-1])
        if squash(prefix + key) == squash(path) or words(prefix + key) == words(path):
            score = 0.96
        scores[path] = max(scores.get(path, 0.0), score)
    for name, paths in SYNONYMS.items():
        if squash(name) == squash(key):
            for path in paths:
                scores[path] = max(scores.get(path, 0.0), 0.97)
    return _best(scores)


def nearest_names(name: str, names: Collection[str]) -> list[str]:
    """Those of `names` that `name` most likely means, at most three, best first."""
    if not squash(name) or len(name) > _LONGEST:
        return []
    scores = {one: likeness(name, one) for one in names}
    for synonym, meant in VALUE_SYNONYMS.items():
        if squash(synonym) == squash(name):
            scores |= {one: 0.97 for one in meant if one in scores and scores[one] < 0.97}
    return _best(scores)


def remark(name: str) -> str | None:
    """What to know when `name` is given and another key is meant, whose value is another one."""
    return next((text for one, text in REMARKS.items() if squash(one) == squash(name)), None)


def any_of(names: Iterable[str]) -> str:
    """'a, b or c'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def did_you_mean(names: Collection[str]) -> str | None:
    """The question, or None when nothing is near."""
    return f"did you mean {any_of(map(repr, names))}?" if names else None
