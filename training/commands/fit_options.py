"""Options of ``fit`` that say what is trained and how, in groups; ``tune`` takes them too, but for what it searches."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.commands.types import counts, integer, number, widths

NETWORKS = ("nfm", "afm", "dcn", "deepfm")
MODELS = ("fm", "fwfm", "pruned_fwfm", "dplr", "rafm", *NETWORKS, "difacto", "llfm")
METHODS = ("plain", "copy", "mixfm", "smfm", "maxup", "bpr", "apr", "sharpcf")


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """All options that ``fit`` and ``tune`` share."""
    parser.add_argument("prepared", type=Path, metavar="PREPARED", help="folder of 'ctrank-train prepare'")
    parser.add_argument(
        "--model", choices=MODELS, default="dplr", metavar="FAMILY",
        help=f"model family: {', '.join(MODELS)} (default dplr)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=METHODS, default="plain", metavar="METHOD",
        help="train on rows (plain), and on copies (copy) or mixtures (mixfm, smfm), or on the worst mixtures (maxup); "
        "on positives and drawn negatives (bpr, apr, sharpcf; of fm alone) (default plain)",
    )  # fmt: skip
    parser.add_argument(
        "--dim", type=integer(1, 1024), default=None, help="length of the vectors (default 8; with --ranks the last)"
    )
    parser.add_argument(
        "--loss", choices=("logistic", "squared", "pairwise"), default=None,
        help="default: logistic for a click label, squared for a rating, pairwise for a pairwise method",
    )  # fmt: skip
    parser.add_argument("--seed", type=integer(0), default=1, help="of first weights and order (default 1)")
    parser.add_argument("--threads", type=integer(1, 1024), default=1, help="torch threads (default 1)")
    _training(parser)
    _field_matrix(parser)
    _ranks(parser)
    _networks(parser)
    _local(parser)
    _mixup(parser)
    _pairwise(parser)


def _training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--optimiser", choices=("adagrad", "adam", "sgd"), default=None, help="default adagrad; llfm has sgd, alone"
    )
    group.add_argument(
        "--lr", type=number(0, above=True), default=None, help="learning rate (default by model and loss)"
    )
    group.add_argument("--l2", type=number(0), default=None, help="L2 of vectors (default by model and loss)")
    group.add_argument("--l2-linear", type=number(0), default=None, help="L2 of linear weights (likewise)")
    group.add_argument(
        "--l2-scope", choices=("touched", "all"), default="touched",
        help="step and L2 on the features of each batch, or on the whole table at every step (default touched)",
    )  # fmt: skip
    group.add_argument(
        "--lr-decay", type=number(0, above=True), default=None,
        help="learning rate after each epoch, times its former value (default 1; 0.99 for smfm and copy)",
    )  # fmt: skip
    group.add_argument("--batch-size", type=integer(1), default=1024, help="default 1024")
    group.add_argument("--epochs", type=integer(1), default=20, help="at most this many (default 20)")
    group.add_argument(
        "--patience", type=integer(1), default=2, help="stop after so many epochs without gain (default 2)"
    )
    group.add_argument(
        "--stop", choices=("loss", "auc"), default="loss",
        help="count epochs without better validation loss, or falls of the validation AUC in a row (default loss)",
    )  # fmt: skip
    group.add_argument("--stop-after", type=integer(0), default=0, help="epochs before they count (default 0)")
    group.add_argument(
        "--init-std", type=number(0, above=True), default=None, help="of the first weights (default 0.01; llfm 0.1)"
    )
    group.add_argument(
        "--paper-compat", action="store_true",
        help="do as the paper's code where it differs from its text (mixtures; --locality jo)",
    )  # fmt: skip


def _field_matrix(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("families with a field matrix (fwfm, pruned_fwfm, dplr)")
    group.add_argument(
        "--rank", type=integer(1, 4096), default=None,
        help="dplr: rank of the field matrix; pruned_fwfm: keep rho (m + 1) interactions (default 2)",
    )  # fmt: skip
    group.add_argument("--gradual", action="store_true", help="pruned_fwfm: prune while training, not only after it")
    group.add_argument(
        "--field-init", choices=("cross", "normal"), default=None,
        help="first R, or U and e: around the matrix that pairs context with item fields, or around 0 (default cross)",
    )  # fmt: skip
    group.add_argument(
        "--field-init-std", type=number(0, above=True), default=None,
        help="of the first R, or U and e (default by model and loss)",
    )  # fmt: skip
    group.add_argument(
        "--field-lr-scale", type=number(0), default=None,
        help="R, U and e learn at this multiple of --lr (default 0.1)",
    )  # fmt: skip


def _ranks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("families with ranks by feature (rafm, difacto)")
    group.add_argument(
        "--ranks", type=widths, default=(), metavar="D1,D2,...",
        help="vectors' lengths, of rare to frequent features (default a quarter of --dim, and it)",
    )  # fmt: skip
    group.add_argument(
        "--thresholds", type=counts, default=(), metavar="N1,...",
        help="training counts above which a feature has the next rank (default: the rank closest to the count in "
        "logarithms)",
    )  # fmt: skip


def _networks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("networks (nfm, afm, dcn, deepfm)")
    group.add_argument(
        "--hidden", type=widths, default=None, metavar="N,..",
        help="nfm, dcn, deepfm: widths of the hidden layers; afm: of the attention (default 64)",
    )  # fmt: skip
    group.add_argument("--cross-layers", type=integer(0, 64), default=None, help="dcn: cross layers (default 3)")
    group.add_argument("--dropout", type=number(0), default=None, help="share of units left out (default 0.2)")


def _local(parser: argparse.ArgumentParser) -> None:
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


def _mixup(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mixup methods (copy, mixfm, smfm, maxup)")
    group.add_argument("--mix-ratio", type=number(0, above=True), help="copies or mixtures per row (default 1)")
    group.add_argument(
        "--mix-alpha", type=number(0, above=True), help="shares ~ Beta(alpha, alpha) (default 0.5; networks 1)"
    )
    group.add_argument("--candidates", type=integer(1), help="smfm, maxup: mixtures to choose from (default 10)")
    group.add_argument("--choose-once", action="store_true", help="maxup: choose when an epoch begins, not each step")


def _pairwise(parser: argparse.ArgumentParser) -> None:
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
