"""The command line's options as settings: completed for the data, and refused where they do not fit together."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.commands.fit_options import NETWORKS
from training.errors import UsageError

if TYPE_CHECKING:
    from training.prepared import Prepared
    from training.trainers.settings import FitSettings

#: Options that some families read, and those.
OF_FAMILIES = {
    "rank": ("dplr", "pruned_fwfm"),
    "gradual": ("pruned_fwfm",),
    "ranks": ("rafm", "difacto"),
    "thresholds": ("rafm", "difacto"),
    "hidden": NETWORKS,
    "cross_layers": ("dcn",),
    "dropout": NETWORKS,
    **dict.fromkeys(("locality", "anchors", "neighbours", "beta", "lipschitz", "anchor_lr_scale"), ("llfm",)),
}
#: Options of the mixup methods, and which of these read them.
OF_MIXUP = {
    "mix_ratio": ("copy", "mixfm", "smfm", "maxup"),
    "mix_alpha": ("mixfm", "smfm", "maxup"),
    "candidates": ("smfm", "maxup"),
    "choose_once": ("maxup",),
}
#: Options of llfm that some localities read, and those.
OF_LOCALITIES = {
    "neighbours": ("do", "apl"),
    "beta": ("do", "apl"),
    "lipschitz": ("jo",),
    "anchor_lr_scale": ("apl", "jo"),
}
#: Options that have their settings' names, and a default that depends on family, method or loss (lr is learning_rate).
BY_DEFAULT = ("lr", "lr_decay", "l2", "l2_linear", "init_std", "field_init", "field_init_std", "field_lr_scale")
#: Options that are settings as they are.
PLAIN = (
    "model", "method", "batch_size", "epochs", "patience", "seed", "threads", "stop", "stop_after", "l2_scope",
    "paper_compat", "gradual", "choose_once", "ranks", "thresholds",
)  # fmt: skip


def settings_of(args: argparse.Namespace, prepared: Prepared) -> FitSettings:
    """The settings of the command line, completed for the data; UsageError for what does not fit together."""
    from training.trainers.settings import OF_PAIRWISE, FitSettings, defaults, method_defaults

    _check_readers(args, OF_FAMILIES, "model", args.model)
    _check_readers(args, OF_MIXUP | OF_PAIRWISE, "method", args.method)
    _check_readers(args, OF_LOCALITIES, "locality", args.locality or "do")
    _check_llfm(args)
    dim = _dim(args)
    loss = _loss(args, prepared)
    optimiser = args.optimiser or ("sgd" if args.model == "llfm" else "adagrad")
    named = (*BY_DEFAULT, *OF_FAMILIES, *OF_MIXUP, *OF_PAIRWISE)
    chosen: dict[str, Any] = {name: getattr(args, name) for name in named if _given(args, name)}
    if "lr" in chosen:
        chosen["learning_rate"] = chosen.pop("lr")
    ranked = args.model in OF_FAMILIES["rank"]
    fixed = {name: getattr(args, name) for name in PLAIN} | {
        "dim": dim, "rank": (args.rank or 2) if ranked else None, "loss": loss, "optimiser": optimiser,
        "calibration": getattr(args, "calibration", "platt") if loss == "logistic" else "none",
    }  # fmt: skip
    start = defaults(args.model, loss, optimiser) | method_defaults(args.method, args.model)
    try:
        return FitSettings(**start | chosen | fixed)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _given(args: argparse.Namespace, name: str) -> bool:
    """Whether the command line names the option."""
    value = getattr(args, name)
    return value is not None and value != () and (value is not False or name == "linear")


def _option(name: str) -> str:
    return "--no-linear" if name == "linear" else "--" + name.replace("_", "-")


def _check_readers(args: argparse.Namespace, readers: Mapping[str, Sequence[str]], what: str, chosen: str) -> None:
    """UsageError for an option that the chosen model, method or locality does not read."""
    for name, those in readers.items():
        if _given(args, name) and chosen not in those:
            wanted = " or ".join(those)
            raise UsageError(f"{_option(name)}: expected with --{what} {wanted}, found with {chosen}")


def _check_llfm(args: argparse.Namespace) -> None:
    """What llfm takes and others do not, or the other way round."""
    if args.model == "llfm" and args.method != "plain":
        raise UsageError(f"--method {args.method}: expected plain with --model llfm, which is trained sample by sample")
    if args.optimiser is not None and (args.model == "llfm") != (args.optimiser == "sgd"):
        raise UsageError(f"--optimiser {args.optimiser}: expected sgd with --model llfm and with no other model")
    if args.paper_compat and args.method not in OF_MIXUP["mix_alpha"] and args.locality != "jo":
        wanted = f"--method {' or '.join(OF_MIXUP['mix_alpha'])}, or with --locality jo"
        raise UsageError(f"--paper-compat: expected with {wanted}, found with {args.method}")


def _dim(args: argparse.Namespace) -> int:
    """Length of the vectors; with ranks the last of them."""
    from training.rank_choice import check_ranks, default_ranks

    dim = int(args.dim or (args.ranks[-1] if args.ranks else 8))
    if args.model in OF_FAMILIES["ranks"]:
        try:
            check_ranks(args.ranks or default_ranks(dim), args.thresholds)
        except ValueError as error:
            raise UsageError(f"--{error}") from None
    if args.ranks and args.ranks[-1] != dim:
        raise UsageError(f"--dim {dim}: expected the last of --ranks, {args.ranks[-1]}, or no --dim")
    return dim


def _loss(args: argparse.Namespace, prepared: Prepared) -> str:
    """The loss that is asked for, or the one that fits method and labels."""
    from training.trainers.settings import PAIRWISE

    pairwise, methods = args.method in PAIRWISE, " or ".join(PAIRWISE)
    loss = str(args.loss or ("pairwise" if pairwise else "logistic" if prepared.task == "binary" else "squared"))
    if (loss == "pairwise") != pairwise:
        wanted = f"pairwise with --method {methods} and with no other"
        raise UsageError(f"--loss {loss}: expected {wanted}, found it with --method {args.method}")
    if pairwise and args.model != "fm":
        raise UsageError(f"--method {args.method}: expected --model fm, found --model {args.model}")
    if prepared.task == "implicit" and not pairwise:
        raise UsageError(
            f"--method {args.method}: expected labels, found implicit feedback (positives only) in {prepared.path}; "
            f"use --model fm with --method {methods}"
        )
    if loss == "logistic" and prepared.task != "binary":
        raise UsageError(
            f"--loss logistic: expected labels 0 and 1, found ratings in {prepared.path}; "
            "prepare with a label rule 'positive = \">= 4\"', or use --loss squared"
        )
    if args.stop == "auc" and loss != "logistic":
        raise UsageError(f"--stop auc: expected with logistic loss, found with {loss} loss")
    return loss
