"""Seconds of a training epoch by BPR, APR and SharpCF on the same data, and their ratios to BPR.

    python tests/bench/pairwise_epochs.py PREPARED [--dim 64] [--batch-size 1024] [--shared-negatives 256] [--rounds 3]

PREPARED: an implicit log made by ``ctrank-train prepare``. One thread. Each round trains an epoch of every method in
turn, all past their start, SharpCF with a full ring; the best round of each counts. Exit code 1 if SharpCF takes over
1.1 times BPR.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

from training.prepared import Prepared
from training.trainers.pairwise import PairwiseTrainer, trajectory_bytes
from training.trainers.plain import denormals_flushed
from training.trainers.settings import PAIRWISE, FitSettings

LIMIT = 1.1
WINDOW = 1  # epochs before the ring is full; its size does not change the work of an epoch


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--shared-negatives", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    prepared = Prepared.open(args.prepared)
    trainers = {}
    for method in PAIRWISE:
        settings = FitSettings(
            model="fm", rank=None, loss="pairwise", calibration="none", method=method, linear=False, dim=args.dim,
            optimiser="adam", learning_rate=1e-3, l2=2e-7, l2_scope="all", batch_size=args.batch_size,
            shared_negatives=args.shared_negatives, init_std=0.01, trajectory_epochs=WINDOW,
        )  # fmt: skip
        trainers[method] = PairwiseTrainer(prepared, settings)
    best = dict.fromkeys(PAIRWISE, float("inf"))
    with denormals_flushed():
        for epoch in range(1, args.rounds + 2):
            for method, trainer in trainers.items():
                start = time.perf_counter()
                trainer.train_epoch(epoch, lambda rows: None)
                if epoch > WINDOW:  # the first compiles, and fills the ring
                    best[method] = min(best[method], time.perf_counter() - start)
    ratios = {method: best[method] / best["bpr"] for method in PAIRWISE}
    pairs = len(trainers["bpr"].pairs)
    found = {
        "data": prepared.name, "pairs": pairs, "dim": args.dim, "batch_size": args.batch_size,
        "shared_negatives": args.shared_negatives,
        "epoch_s": {m: round(s, 3) for m, s in best.items()}, "over_bpr": {m: round(r, 3) for m, r in ratios.items()},
        "past_scores_mb_per_epoch_of_window": trajectory_bytes(trainers["sharpcf"].settings, pairs) / 1e6,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    return int(ratios["sharpcf"] > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
