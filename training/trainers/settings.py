"""Settings of one training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from models_export.calibration import KINDS
from models_export.locality import MOST_ANCHORS, SCHEMES, Locality
from models_export.manifest import FAMILIES, LOSSES, NETWORK_FAMILIES
from training.rank_choice import check_ranks, default_ranks

#: Methods that train on mixtures of rows (``trainers/mixup.py``), and those that compare candidates.
MIXUP = ("copy", "mixfm", "smfm", "maxup")
WITH_CANDIDATES = ("smfm", "maxup")
#: Methods that train on pairs of a positive and a drawn negative (``trainers/pairwise.py``).
PAIRWISE = ("bpr", "apr", "sharpcf")
METHODS = ("plain", *MIXUP, *PAIRWISE)
#: Settings of the pairwise methods, and which of these read them.
OF_PAIRWISE = {
    "linear": PAIRWISE,
    "start_epoch": ("apr", "sharpcf"),
    "perturbation": ("apr",),
    "adversarial_weight": ("apr",),
    "trajectory_weight": ("sharpcf",),
    "trajectory_epochs": ("sharpcf",),
    "valid_metric": PAIRWISE,
    "eval_every": PAIRWISE,
    "shared_negatives": PAIRWISE,
}
MODELS = (*FAMILIES, "difacto")
#: Families whose features have several ranks.
RAGGED = ("rafm", "difacto")
#: Settings of llfm alone.
OF_LOCAL = ("locality", "anchors", "neighbours", "beta", "lipschitz", "anchor_lr_scale")
CHOICES = {
    "model": MODELS,
    "loss": LOSSES,
    "optimiser": ("adagrad", "adam", "sgd"),
    "field_init": ("normal", "cross"),
    "calibration": KINDS,
    "method": METHODS,
    "stop": ("loss", "auc"),
    "valid_metric": ("recall@10", "ndcg@10", "recall@20", "ndcg@20"),
    "l2_scope": ("touched", "all"),
    "locality": SCHEMES,
}
LEAST = {
    "dim": 1, "rank": 1, "batch_size": 1, "epochs": 1, "patience": 1, "threads": 1, "seed": 0,
    "learning_rate": 0.0, "l2": 0.0, "l2_linear": 0.0, "init_std": 0.0, "field_init_std": 0.0, "field_lr_scale": 0.0,
    "mix_ratio": 0.0, "mix_alpha": 0.0, "candidates": 1, "lr_decay": 0.0, "stop_after": 0,
    "start_epoch": 0, "perturbation": 0.0, "adversarial_weight": 0.0, "trajectory_weight": 0.0, "trajectory_epochs": 1,
    "eval_every": 1, "shared_negatives": 0,
    "cross_layers": 0, "dropout": 0.0, "anchors": 1, "neighbours": 1,
    "beta": 0.0, "lipschitz": 0.0, "anchor_lr_scale": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class FitSettings:
    """Everything that, with the prepared data, determines a run's weights to the byte.

    ``init_std`` is the standard deviation of the first vectors and linear weights, ``field_init_std`` that of R, or
    of U and e. ``field_init`` "normal" draws these around 0, as the DPLR paper's code does (all with 0.01); "cross"
    around the matrix that pairs context with item fields. ``field_lr_scale``: R, U and e learn at this multiple of
    the learning rate. They are few and see every example, and what they gain in scale the vectors lose, which undoes
    the L2; so they overfit first.

    ``lr_decay`` multiplies the learning rate after each epoch. ``stop`` "loss": training ends when ``patience`` epochs
    brought no better validation loss; "auc": when the validation AUC fell ``patience`` times in a row. Epochs up to
    ``stop_after`` do not count. ``mix_ratio`` is n'/n, mixtures per row; ``mix_alpha`` the parameters of the Beta
    distribution of their shares; ``candidates`` p, of which smfm takes one by the model as it is when an epoch begins,
    maxup by the model as it is at the step (``choose_once``: as smfm); ``paper_compat``: do as the paper's published
    code where it differs from its text (mixtures list a feature of both parents twice).

    Of the pairwise methods (``training.trainers.pairwise``): ``linear`` false leaves the linear weights at 0, which
    makes an FM of two fields a plain matrix factorization; APR and SharpCF begin after ``start_epoch``;
    ``perturbation`` is the length of APR's delta per vector and ``adversarial_weight`` its alpha;
    ``trajectory_weight`` is SharpCF's lambda and ``trajectory_epochs`` its E; ``shared_negatives``: negatives that a
    batch draws for all its pairs (0: one per pair).
    Validation is measured every ``eval_every`` epochs, the best by ``valid_metric``.

    Networks: ``hidden`` widths of the relu layers (afm: the attention's), ``cross_layers`` of dcn, ``dropout`` the
    share of units that a step leaves out.

    ``ranks`` of rafm and difacto, strictly increasing, the last one ``dim`` (empty: a quarter of ``dim``, and
    ``dim``); ``thresholds``: training counts above which a feature gets the next rank (empty: equation 17 of the RaFM
    paper). ``l2_scope``: a step visits the features of its batch and adds the L2 of those ("touched"), or the whole
    table ("all": the dense optimiser; rare features are then shrunk far more). Pairwise methods: the L2 of each
    occurrence, or that of the whole table, which a row is charged with for all the steps it waited when a step next
    visits it.

    llfm is trained by "sgd", sample by sample, step t at the rate eta = learning_rate / (1 + l2 learning_rate t),
    anchors at ``anchor_lr_scale`` times it: the paper's rho / (t + t0) with learning_rate = rho / t0 and l2 = 1 / rho.
    ``locality`` is its local coding: "do", "apl" or "jo"; ``anchors``, and how many ``neighbours`` a point has among
    them (do, apl); ``beta`` of do and apl; ``lipschitz`` is L/C of jo, and ``paper_compat`` takes it times squared
    distances, as the authors' code does.
    """

    model: str = "dplr"
    dim: int = 8
    rank: int | None = 2
    loss: str = "logistic"
    optimiser: str = "adagrad"
    learning_rate: float = 0.05
    l2: float = 0.0
    l2_linear: float = 0.0
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 2
    init_std: float = 0.01
    field_init: str = "normal"
    field_init_std: float = 0.01
    field_lr_scale: float = 1.0
    seed: int = 1
    threads: int = 1
    gradual: bool = False
    calibration: str = "platt"
    method: str = "plain"
    mix_ratio: float = 1.0
    mix_alpha: float = 0.5
    candidates: int = 10
    lr_decay: float = 1.0
    stop: str = "loss"
    stop_after: int = 0
    paper_compat: bool = False
    choose_once: bool = False
    linear: bool = True
    start_epoch: int = 0
    perturbation: float = 0.5
    adversarial_weight: float = 1.0
    trajectory_weight: float = 0.1
    trajectory_epochs: int = 3
    valid_metric: str = "ndcg@10"
    eval_every: int = 1
    shared_negatives: int = 0
    hidden: tuple[int, ...] = ()
    cross_layers: int = 3
    dropout: float = 0.0
    ranks: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()
    l2_scope: str = "touched"
    locality: str = "do"
    anchors: int = 50
    neighbours: int = 5
    beta: float = 1.0
    lipschitz: float = 1.0
    anchor_lr_scale: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", tuple(self.ranks))
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        if self.model == "llfm":
            object.__setattr__(self, "optimiser", "sgd")  # it has its own, whatever is named
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {getattr(self, name)!r}")
        for name, low in LEAST.items():
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise ValueError(f"{name}: expected at least {low}, found {value!r}")
        if (self.method in PAIRWISE) != (self.loss == "pairwise"):
            raise ValueError(f"loss: expected 'pairwise' with the methods {', '.join(PAIRWISE)} and with no other, "
                             f"found {self.loss!r} with {self.method!r}")  # fmt: skip
        if self.loss == "pairwise" and (self.model != "fm" or self.calibration != "none"):
            raise ValueError("pairwise loss: expected model 'fm' and calibration 'none', "
                             f"found {self.model!r} and {self.calibration!r}")  # fmt: skip

        if self.model in RAGGED:
            check_ranks(self.rank_list, self.thresholds)
            if self.rank_list[-1] != self.dim:
                raise ValueError(f"ranks: expected the last one to be dim = {self.dim}, found {list(self.ranks)}")
        elif self.ranks or self.thresholds:
            raise ValueError(f"ranks: expected with {' or '.join(RAGGED)}, found with {self.model}")
        if self.mix_alpha == 0.0 or (self.method == "maxup" and self.mix_ratio == 0.0):
            zero = "mix_alpha" if self.mix_alpha == 0.0 else "mix_ratio"
            raise ValueError(f"{zero}: expected above 0, found 0.0")
        if not all(isinstance(width, int) and width > 0 for width in self.hidden):
            raise ValueError(f"hidden: expected whole numbers above 0, found {self.hidden!r}")
        if self.model == "afm" and len(self.hidden) > 1:
            raise ValueError(f"hidden: expected one width, that of the attention, with afm, found {self.hidden!r}")
        self._check_local()
        if self.dropout >= 1.0:
            raise ValueError(f"dropout: expected below 1, found {self.dropout!r}")
        if self.stop == "auc" and self.loss != "logistic":
            raise ValueError(f"stop: expected 'loss' with {self.loss} loss, found 'auc'")

    def _check_local(self) -> None:
        if self.model != "llfm" and self.optimiser == "sgd":
            raise ValueError(f"optimiser: expected adagrad or adam with {self.model}, found 'sgd'")
        if self.model == "llfm" and self.method != "plain":
            raise ValueError(f"method: expected 'plain' with llfm, found {self.method!r}")
        if self.anchors > MOST_ANCHORS or self.neighbours > MOST_ANCHORS:
            raise ValueError(f"anchors: expected at most {MOST_ANCHORS}, found {max(self.anchors, self.neighbours)}")

    @property
    def local_scheme(self) -> Locality | None:
        """Local coding of llfm; None for other models."""
        if self.model != "llfm":
            return None
        near = min(self.neighbours, self.anchors)
        return Locality(self.locality, self.anchors, near, self.beta, self.lipschitz, self.paper_compat)

    @property
    def rank_list(self) -> tuple[int, ...]:
        """The ranks of rafm and difacto, those of ``dim`` where none are named."""
        return self.ranks or default_ranks(self.dim)

    def stops(self, history: Sequence[Mapping[str, Any]], best_epoch: int) -> bool:
        """Whether to stop early after the epochs of ``history`` (``valid_auc`` each), the best of which was
        ``best_epoch`` (0: none).
        """
        if self.stop == "loss":
            return len(history) - max(best_epoch, self.stop_after) >= self.patience
        recent = [epoch["valid_auc"] for epoch in history[-self.patience - 1 :]]
        falls = all(later < earlier for earlier, later in pairwise(recent))
        return len(history) >= self.stop_after + self.patience and len(recent) == self.patience + 1 and falls

    def rows_per_epoch(self, rows: int) -> int:
        """How many rows an epoch over ``rows`` training rows visits; pairwise methods: between two validations."""
        if self.method in PAIRWISE:
            return rows * self.eval_every
        if self.method in MIXUP:
            extra = round(self.mix_ratio * rows)
            return extra if self.method == "maxup" else rows + extra
        return rows

    def to_json(self) -> dict[str, Any]:
        """As JSON object."""
        return asdict(self) | {"hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FitSettings:
        """Back from :meth:`to_json`; an unknown key is a ValueError."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}")
        return cls(**data | {"hidden": tuple(data.get("hidden", ()))})


def defaults(model: str, loss: str, optimiser: str) -> dict[str, Any]:
    """What is used where the user names nothing: the best of a search on MovieLens-1M's validation split, but for
    ``field_lr_scale``. MovieLens, whose fields hardly differ, would have 0.01 (validation AUC .8204); a log of a FwFM
    teacher (``synth``) loses .03 of AUC with it. At 0.1 both beat FM (.8196; .8024 against .795). RaFM and DiFacto,
    which are FMs, take FM's."""
    if model in NETWORK_FAMILIES:
        rate = 0.001 if optimiser == "adam" else 0.02
        return {"learning_rate": rate, "field_init": "normal", "hidden": (64,), "dropout": 0.2}
    if model == "llfm":
        return {"learning_rate": 0.1, "l2": 1e-4, "l2_linear": 1e-4, "init_std": 0.1}
    field = {"field_init": "cross", "field_init_std": 0.01, "field_lr_scale": 0.1}
    if optimiser == "adam":
        return {"learning_rate": 0.002, "l2": 1e-6, "l2_linear": 1e-6} | field
    if loss == "pairwise":
        return {"learning_rate": 0.05, "l2": 1e-3, "l2_linear": 1e-3} | field
    names = ("learning_rate", "l2", "l2_linear")
    return field | dict(zip(names, _ADAGRAD[model, loss], strict=True))


def method_defaults(method: str, model: str) -> dict[str, Any]:
    """What a training method needs beside the family's defaults, as in the paper's code: SMFM and CopyFM let the
    learning rate decay, NFM's mixtures have uniform shares."""
    decay = {"lr_decay": 0.99} if method in ("copy", "smfm") else {}
    return decay | ({"mix_alpha": 1.0} if method in MIXUP and model == "nfm" else {})


_ADAGRAD = {
    ("fm", "logistic"): (0.13, 4e-5, 2e-5),
    ("fwfm", "logistic"): (0.13, 8e-5, 2e-5),
    ("pruned_fwfm", "logistic"): (0.13, 8e-5, 2e-5),
    ("dplr", "logistic"): (0.13, 8e-5, 2e-5),
    ("rafm", "logistic"): (0.13, 4e-5, 2e-5),
    ("difacto", "logistic"): (0.13, 4e-5, 2e-5),
    ("fm", "squared"): (0.13, 1.7e-4, 5e-6),
    ("fwfm", "squared"): (0.13, 2e-4, 5e-6),
    ("pruned_fwfm", "squared"): (0.13, 2e-4, 5e-6),
    ("dplr", "squared"): (0.13, 2e-4, 5e-6),
    ("rafm", "squared"): (0.13, 1.7e-4, 5e-6),
    ("difacto", "squared"): (0.13, 1.7e-4, 5e-6),
}
