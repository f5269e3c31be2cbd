"""Train a model on prepared data with early stopping and checkpoints.

The run folder holds the best epoch's weights, a checkpoint after every epoch, and the calibrated validation and test
metrics. A killed run continues with the same command and --resume, and ends with the same bytes.

example::

  ctrank-train fit prepared --model dplr --rank 2 --out run
  ctrank-train fit prepared --model pruned_fwfm --rank 2 --gradual --out run-pruned
  ctrank-train fit gowalla --model fm --method sharpcf --no-linear --start-epoch 200 --eval-every 10 --out run-cf
  ctrank-train fit prepared --model rafm --ranks 64,256 --out run-rafm
  ctrank-train fit banana --model llfm --locality jo --dim 10 --anchors 50 --out run-local
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.commands.types import counts, integer, number, widths
from training.errors import UsageError

if TYPE_CHECKING:
    from training.prepared import Prepared
    from training.trainers.settings import FitSettings

NETWORKS = ("nfm", "afm", "dcn", "deepfm")
MODELS = ("fm", "fwfm", "pruned_fwfm", "dplr", "rafm", *NETWORKS, "difacto", "llfm")
METHODS = ("plain", "copy", "mixfm", "smfm", "maxup", "bpr", "apr", "sharpcf")
#: Options of the mixup methods: setting -> the methods that read it.
MIXING = {
    "mix_ratio": ("copy", "mixfm", "smfm", "maxup"),
    "mix_alpha": ("mixfm", "smfm", "maxup"),
    "candidates": ("smfm", "maxup"),
}


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say what is trained (shared with ``tune``)."""
    parser.add_argument("prepared", type=Path, metavar="PREPARED", help="folder of 'ctrank-train prepare'")
    parser.add_argument("--model", choices=MODELS, default="dplr", help="model family (default dplr)")
    parser.add_argument(
        "--rank", type=integer(1, 4096), default=None,
        help="dplr: rank of the field matrix; pruned_fwfm: keep rho (m + 1) interactions (default 2)",
    )  # fmt: skip
    parser.add_argument(
        "--dim", type=integer(1, 1024), default=None, help="length of the vectors (default 8; with --ranks the last)"
    )
    parser.add_argument(
        "--ranks", type=widths, default=(), metavar="D1,D2,...",
        help="rafm, difacto: vectors' lengths, of rare to frequent features (default a quarter of --dim, and it)",
    )  # fmt: skip
    parser.add_argument(
        "--thresholds", type=counts, default=(), metavar="N1,...",
        help="rafm, difacto: training counts above which a feature has the next rank (default: the rank closest to the "
        "count in logarithms)",
    )  # fmt: skip
    parser.add_argument(
        "--l2-scope", choices=("touched", "all"), default="touched",
        help="step and L2 on the features of each batch, or on the whole table at every step (default touched)",
    )  # fmt: skip
    parser.add_argument(
        "--loss", choices=("logistic", "squared", "pairwise"), default=None,
        help="default: logistic for a click label, squared for a rating, pairwise for a pairwise method",
    )  # fmt: skip
    parser.add_argument(
        "--optimiser", choices=("adagrad", "adam", "sgd"), default=None, help="default adagrad; llfm has sgd, alone"
    )
    parser.add_argument("--batch-size", type=integer(1), default=1024, help="default 1024")
    parser.add_argument("--epochs", type=integer(1), default=20, help="at most this many (default 20)")
    parser.add_argument(
        "--patience", type=integer(1), default=2, help="stop after so many epochs without gain (default 2)"
    )
    parser.add_argument(
        "--init-std", type=number(0, above=True), default=None, help="of the first weights (default 0.01; llfm 0.1)"
    )
    parser.add_argument("--seed", type=integer(0), default=1, help="of first weights and order (default 1)")
    parser.add_argument("--threads", type=integer(1, 1024), default=1, help="torch threads (default 1)")
    parser.add_argument(
        "--field-init", choices=("cross", "normal"), default=None,
        help="first R, or U and e: around the matrix that pairs context with item fields, or around 0 (default cross)",
    )  # fmt: skip
    parser.add_argument("--gradual", action="store_true", help="pruned_fwfm: prune while training, not only after it")
    parser.add_argument(
        "--hidden", type=widths, default=None, metavar="N,..",
        help="nfm, dcn, deepfm: widths of the hidden layers; afm: of the attention (default 64)",
    )  # fmt: skip
    parser.add_argument("--cross-layers", type=integer(0, 64), default=None, help="dcn: cross layers (default 3)")
    parser.add_argument(
        "--dropout", type=number(0), default=None, help="nfm, afm, dcn, deepfm: share of units left out (default 0.2)"
    )
    local_arguments(parser)
    method_arguments(parser)


def local_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of llfm; None where the command line does not name them."""
    group = parser.add_argument_group("locally linear FM (llfm)")
    group.add_argument(
        "--locality", choices=("do", "apl", "jo"), default=None,
        help="anchors as k-means puts them (do), trained too (apl), and with as many neighbours as a point needs (jo); "
        "default do",
    )  # fmt: skip
    group.add_argument("--anchors", type=integer(1, 1024), default=None, help="default 50")
    group.add_argument("--neighbours", type=integer(1, 1024), default=None, help="do, apl: of a point (default 5)")
    group.add_argument("--beta", type=number(0), default=None, help="do, apl: gamma ~ exp(-beta d^2) (default 1)")
    group.add_argument(
        "--lipschitz", type=number(0), default=None, metavar="L/C",
        help="jo: Lipschitz constant over noise; more means fewer neighbours (default 1)",
    )  # fmt: skip
    group.add_argument(
        "--anchor-lr-scale", type=number(0), default=None,
        help="apl, jo: anchors learn at this multiple of the learning rate (default 0.1)",
    )  # fmt: skip


#: Options of llfm -> the localities that read them.
LOCAL = {
    "locality": ("do", "apl", "jo"),
    "anchors": ("do", "apl", "jo"),
    "neighbours": ("do", "apl"),
    "beta": ("do", "apl"),
    "lipschitz": ("jo",),
    "anchor_lr_scale": ("apl", "jo"),
}


def check_local(args: argparse.Namespace) -> None:
    """UsageError for options of llfm with another model or another locality, and for what llfm does not take."""
    locality = args.locality or "do"
    for name, readers in LOCAL.items():
        option = "--" + name.replace("_", "-")
        if getattr(args, name) is None:
            continue
        if args.model != "llfm":
            raise UsageError(f"{option}: expected with --model llfm, found with {args.model}")
        if locality not in readers:
            raise UsageError(f"{option}: expected with --locality {' or '.join(readers)}, found with {locality}")
    if args.model == "llfm" and args.method != "plain":
        raise UsageError(f"--method {args.method}: expected plain with --model llfm, which is trained sample by sample")
    if args.optimiser is not None and (args.model == "llfm") != (args.optimiser == "sgd"):
        raise UsageError(f"--optimiser {args.optimiser}: expected sgd with --model llfm and with no other model")


def method_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say how it is trained (shared with ``tune``)."""
    parser.add_argument(
        "--method", choices=METHODS, default="plain",
        help="train on rows (plain), and on copies (copy) or mixtures (mixfm, smfm), or on the worst mixtures (maxup); "
        "on positives and drawn negatives (bpr, apr, sharpcf)",
    )  # fmt: skip
    parser.add_argument("--mix-ratio", type=number(0, above=True), help="copies or mixtures per row (default 1)")
    parser.add_argument("--mix-alpha", type=number(0, above=True), help="shares ~ Beta(alpha, alpha) (default 0.5)")
    parser.add_argument("--candidates", type=integer(1), help="smfm, maxup: mixtures to choose from (default 10)")
    parser.add_argument("--choose-once", action="store_true", help="maxup: choose when an epoch begins, not each step")
    parser.add_argument(
        "--paper-compat",
        action="store_true",
        help="as the paper's code, where it differs from its text",
    )
    parser.add_argument(
        "--lr-decay", type=number(0, above=True), default=None,
        help="learning rate after each epoch, times its former value (default 1; 0.99 for smfm and copy)",
    )  # fmt: skip
    parser.add_argument(
        "--stop", choices=("loss", "auc"), default="loss",
        help="count epochs without better validation loss, or falls of the validation AUC in a row (default loss)",
    )  # fmt: skip
    parser.add_argument("--stop-after", type=integer(0), default=0, help="epochs before they count (default 0)")
    pairwise_arguments(parser)


def pairwise_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the methods bpr, apr and sharpcf; None where the command line does not name them."""
    group = parser.add_argument_group("pairwise methods (bpr, apr, sharpcf)")
    group.add_argument(
        "--no-linear", dest="linear", action="store_false", default=None,
        help="no linear weights: an FM of user and item alone is then a plain matrix factorization",
    )  # fmt: skip
    group.add_argument("--start-epoch", type=integer(0), default=None, help="apr, sharpcf: BPR up to it (default 0)")
    group.add_argument(
        "--perturbation", type=number(0, above=True), default=None,
        help="apr: length of the adversary's step, per vector (default 0.5)",
    )  # fmt: skip
    group.add_argument(
        "--adversarial-weight", type=number(0), default=None, help="apr: weight of the adversarial loss (default 1)"
    )
    group.add_argument(
        "--trajectory-weight", type=number(0), default=None, help="sharpcf: lambda of the trajectory loss (default 0.1)"
    )
    group.add_argument(
        "--trajectory-epochs", type=integer(1, 1000), default=None,
        help="sharpcf: compare with the score of so many epochs ago; 4 bytes per positive for each (default 3)",
    )  # fmt: skip
    group.add_argument(
        "--shared-negatives", type=integer(0), default=None,
        help="draw so many negatives per batch, each pair against all of them (default 0: one of its own per pair)",
    )  # fmt: skip
    group.add_argument(
        "--valid-metric", choices=("recall@10", "ndcg@10", "recall@20", "ndcg@20"), default=None,
        help="the best epoch is the best by it (default ndcg@10)",
    )  # fmt: skip
    group.add_argument(
        "--eval-every", type=integer(1), default=None,
        help="measure validation and write a checkpoint every so many epochs (default 1)",
    )  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``fit``."""
    model_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder")
    parser.add_argument(
        "--field-lr-scale",
        type=number(0),
        default=None,
        help="R, U and e learn at this multiple of --lr (default 0.1)",
    )
    parser.add_argument(
        "--field-init-std",
        type=number(0, above=True),
        default=None,
        help="of the first R, or U and e (default by model and loss)",
    )
    parser.add_argument(
        "--lr", type=number(0, above=True), default=None, help="learning rate (default by model and loss)"
    )
    parser.add_argument(
        "--l2", type=number(0), default=None, help="L2 of vectors touched by a batch (default by model and loss)"
    )
    parser.add_argument("--l2-linear", type=number(0), default=None, help="L2 of linear weights touched by a batch")
    parser.add_argument(
        "--calibration", choices=("platt", "isotonic", "none"), default="platt",
        help="calibrator fitted on validation, logistic loss only (default platt)",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, or start it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def settings_of(args: argparse.Namespace, prepared: Prepared) -> FitSettings:
    """The settings of the command line, completed for the data; UsageError for what does not fit together."""
    from training.rank_choice import check_ranks, default_ranks
    from training.trainers.settings import OF_PAIRWISE, PAIRWISE, RAGGED, defaults, method_defaults

    ranked = args.model in ("dplr", "pruned_fwfm")
    if args.rank is not None and not ranked:
        raise UsageError(f"--rank {args.rank}: expected with --model dplr or pruned_fwfm, found with {args.model}")
    for option in ("ranks", "thresholds"):
        if getattr(args, option) and args.model not in RAGGED:
            raise UsageError(f"--{option}: expected with --model {' or '.join(RAGGED)}, found with {args.model}")
    dim = args.dim or (args.ranks[-1] if args.ranks else 8)
    if args.model in RAGGED:
        try:
            check_ranks(args.ranks or default_ranks(dim), args.thresholds)
        except ValueError as error:
            raise UsageError(f"--{error}") from None
    if args.ranks and args.ranks[-1] != dim:
        raise UsageError(f"--dim {dim}: expected the last of --ranks, {args.ranks[-1]}, or no --dim")
    if args.gradual and args.model != "pruned_fwfm":
        raise UsageError(f"--gradual: expected with --model pruned_fwfm, found with {args.model}")
    for name in ("hidden", "cross_layers", "dropout"):
        if getattr(args, name) is not None and args.model not in (("dcn",) if name == "cross_layers" else NETWORKS):
            option, models = "--" + name.replace("_", "-"), "dcn" if name == "cross_layers" else ", ".join(NETWORKS)
            raise UsageError(f"{option}: expected with --model {models}, found with {args.model}")
    for name, methods in (MIXING | OF_PAIRWISE).items():
        if getattr(args, name) is not None and args.method not in methods:
            option = "--no-linear" if name == "linear" else "--" + name.replace("_", "-")
            raise UsageError(f"{option}: expected with --method {' or '.join(methods)}, found with {args.method}")
    if args.choose_once and args.method != "maxup":
        raise UsageError(f"--choose-once: expected with --method maxup, found with {args.method}")
    check_local(args)
    if args.paper_compat and args.method not in MIXING["mix_alpha"] and args.locality != "jo":
        raise UsageError(
            "--paper-compat: expected with --method mixfm, smfm or maxup, or with --model llfm --locality jo, "
            f"found with {args.method}"
        )
    pairwise = args.method in PAIRWISE
    loss = args.loss or ("pairwise" if pairwise else "logistic" if prepared.task == "binary" else "squared")
    if (loss == "pairwise") != pairwise:
        wanted = f"pairwise with --method {' or '.join(PAIRWISE)} and with no other"
        raise UsageError(f"--loss {loss}: expected {wanted}, found it with --method {args.method}")
    if pairwise and args.model != "fm":
        raise UsageError(f"--method {args.method}: expected --model fm, found --model {args.model}")
    if prepared.task == "implicit" and not pairwise:
        raise UsageError(
            f"--method {args.method}: expected labels, found implicit feedback (positives only) in {prepared.path}; "
            f"use --model fm with --method {' or '.join(PAIRWISE)}"
        )
    if loss == "logistic" and prepared.task != "binary":
        raise UsageError(
            f"--loss logistic: expected labels 0 and 1, found ratings in {prepared.path}; "
            "prepare with a label rule 'positive = \">= 4\"', or use --loss squared"
        )
    if args.stop == "auc" and loss != "logistic":
        raise UsageError(f"--stop auc: expected with logistic loss, found with {loss} loss")
    optimiser = args.optimiser or ("sgd" if args.model == "llfm" else "adagrad")
    rates = ("lr", "lr_decay", "l2", "l2_linear", "field_init", "field_init_std", "field_lr_scale")
    named = (*rates, "init_std", *LOCAL, *MIXING, *OF_PAIRWISE, "hidden", "cross_layers", "dropout")
    chosen: dict[str, Any] = {key: value for key in named if (value := getattr(args, key, None)) is not None}
    if "lr" in chosen:
        chosen["learning_rate"] = chosen.pop("lr")
    return _checked(
        model=args.model, dim=dim, rank=(args.rank or 2) if ranked else None, loss=loss, optimiser=optimiser,
        batch_size=args.batch_size, epochs=args.epochs, patience=args.patience, seed=args.seed,
        threads=args.threads, gradual=args.gradual, method=args.method, paper_compat=args.paper_compat,
        choose_once=args.choose_once, stop=args.stop,
        stop_after=args.stop_after, ranks=args.ranks, thresholds=args.thresholds, l2_scope=args.l2_scope,
        calibration=getattr(args, "calibration", "platt") if loss == "logistic" else "none",
        **defaults(args.model, loss, optimiser) | method_defaults(args.method, args.model) | chosen,
    )  # fmt: skip


def _checked(**settings: Any) -> FitSettings:
    """The settings; UsageError for one that is out of range or does not fit the others."""
    from training.trainers.settings import FitSettings

    try:
        return FitSettings(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from None


def run(args: argparse.Namespace) -> None:
    """Fit a model."""
    from training.evaluation import COUNTS
    from training.prepared import Prepared
    from training.progress import Progress
    from training.run import fit
    from training.trainers.pairwise import trajectory_bytes
    from training.trainers.report import EpochBars
    from training.trainers.settings import RAGGED

    prepared = Prepared.open(args.prepared)
    settings = settings_of(args, prepared)
    progress = Progress()
    rank = f" rank {settings.rank}" if settings.rank else ""
    rank = f" ranks {', '.join(map(str, settings.rank_list))}" if settings.model in RAGGED else rank
    if settings.model == "llfm":
        rank = f" ({settings.locality}, {settings.anchors} anchors)"
    method = "" if settings.method == "plain" else f" by {settings.method}"
    progress.line(
        f"{settings.model}{rank}{method}, {settings.loss} loss, lr {settings.learning_rate:g}, L2 {settings.l2:g}"
    )
    memory = trajectory_bytes(settings, prepared.rows("train"))
    if memory:
        progress.line(f"past scores of {settings.trajectory_epochs} epochs: {memory / 1e6:.1f} MB of memory")
    bars = EpochBars(progress, settings.rows_per_epoch(prepared.rows("train")))
    try:
        run = fit(prepared, settings, args.out, args.resume, bars.epoch_done, bars.tick)
    except FloatingPointError as error:
        raise UsageError(str(error)) from None
    if args.json:
        print(json.dumps({"run": str(args.out), "best_epoch": run.best_epoch, "metrics": run.metrics}, indent=2))
        return
    for split, found in run.metrics.items():
        print(f"{split}: " + ", ".join(f"{k} {v:.5f}" for k, v in found.items() if k not in COUNTS))
    print(f"wrote {args.out} (best epoch {run.best_epoch}); next: ctrank-train evaluate {args.out}")
