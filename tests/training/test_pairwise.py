"""BPR, APR and SharpCF: gradients against the oracle's losses, negatives, past scores, bytes, resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models_export.weights import Weights
from tests import oracle
from tests.training.prepared_log import prepare_log
from training.errors import UsageError
from training.interactions import FeatureLists, Interactions
from training.prepare import prepare
from training.prepared import Prepared
from training.run import Run, fit
from training.trainers import _pairwise_kernels as kernels
from training.trainers.checkpoint import read_arrays
from training.trainers.pairwise import PairwiseTrainer, trajectory_bytes
from training.trainers.settings import PAIRWISE, FitSettings

SETTINGS = FitSettings(
    model="fm", rank=None, loss="pairwise", calibration="none", method="bpr", dim=4, learning_rate=0.1, batch_size=64,
    epochs=4, patience=4, init_std=0.3, l2=0.01, l2_linear=0.0,
)  # fmt: skip
FULL = 10_000
"""A batch that holds every positive of the small logs."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Clicks with side fields, single- and multi-valued, on both sides."""
    return prepare_log(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def implicit(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Users and items alone, positives only; a user likes the items of its own parity."""
    from tests.training.data.test_user_items import write

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("implicit")
    liked = [rng.choice(np.arange(u % 2, 40, 2), 12, replace=False) for u in range(30)]
    train, test = (
        "".join(f"u{u} " + " ".join(f"i{i}" for i in liked[u][part]) + "\n" for u in range(30))
        for part in (slice(9), slice(9, 12))
    )
    return prepare(write(folder, train, test), folder, folder / "prepared").open()


def features(lists: FeatureLists, index: int) -> list[list[oracle.Value]]:
    begin, end = lists.indptr[index], lists.indptr[index + 1]
    return [[(int(r), float(x))] for r, x in zip(lists.rows[begin:end], lists.x[begin:end], strict=True)]


def triples(trainer: PairwiseTrainer, order: Any, negatives: Any) -> list[Any]:
    pairs, items = trainer.pairs, trainer.items
    return [
        (features(pairs.context, p), features(items, int(pairs.item[p])), features(items, int(n)))
        for p, n in zip(order, negatives, strict=True)
    ]


def weights_of(table: Any) -> Weights:
    return Weights(family="fm", vectors=table[:, :-1], linear=table[:, -1], bias=0.0)


def gradient(loss: Any, table: Any, rows: list[int]) -> np.ndarray:
    """Central differences of ``loss(weights)``, in float64, for the parameters of ``rows``."""
    table, h = table.astype(np.float64), 1e-5
    out = np.zeros_like(table)
    for r in rows:
        for c in range(table.shape[1]):
            sides = []
            for step in (h, -h):
                moved = table.copy()
                moved[r, c] += step
                sides.append(loss(weights_of(moved)))
            out[r, c] = (sides[0] - sides[1]) / (2 * h)
    return out


class Captured:
    """The gradients that the optimiser got, and the table they belong to."""

    def __init__(self, trainer: PairwiseTrainer) -> None:
        self.trainer, self.grad = trainer, []
        trainer.table.step_rows = self.take  # type: ignore[method-assign]

    def take(self, touched: Any, learning_rate: float, number: int) -> None:
        self.grad.append(self.trainer.table.grad.copy())
        self.trainer.table.grad[...] = 0.0


def drawn(trainer: PairwiseTrainer, epoch: int, keep: int) -> tuple[Any, Any]:
    """Pairs and negatives of an epoch's only batch; the trainer is cut to ``keep`` pairs first."""
    order = np.random.default_rng([trainer.settings.seed, epoch]).permutation(keep)
    return order, trainer.negatives(order, epoch)


def cut(trainer: PairwiseTrainer, keep: int) -> None:
    pairs = trainer.pairs
    index = np.arange(keep)
    trainer.pairs = type(pairs)(pairs.user[:keep], pairs.item[:keep], pairs.context.take(index))
    trainer.ring = trainer.ring[:, :keep].copy()


@pytest.mark.parametrize("log", ["mixed", "implicit"])
def test_bpr_gradient_is_that_of_the_plain_loss(log: str, request: pytest.FixtureRequest) -> None:
    trainer = PairwiseTrainer(request.getfixturevalue(log), replace(SETTINGS, batch_size=FULL))
    cut(trainer, 12)
    captured = Captured(trainer)
    loss = trainer.train_epoch(1, lambda rows: None)
    asked = triples(trainer, *drawn(trainer, 1, 12))
    table = trainer.table.values
    assert loss == pytest.approx(oracle.bpr_loss(weights_of(table), asked), rel=1e-5)
    rows = sorted({row for triple in asked for fields in triple for values in fields for row, _ in values})
    expected = gradient(lambda w: oracle.bpr_loss(w, asked) + oracle.occurrence_l2(w, asked, 0.01), table, rows)
    assert np.abs(captured.grad[0] - expected).max() < 2e-6 and np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("log", ["mixed", "implicit"])
def test_apr_adds_the_gradient_at_vectors_moved_along_their_own(log: str, request: pytest.FixtureRequest) -> None:
    settings = replace(SETTINGS, method="apr", batch_size=FULL, perturbation=0.7, adversarial_weight=2.0)
    trainer = PairwiseTrainer(request.getfixturevalue(log), settings)
    cut(trainer, 8)
    captured, before = Captured(trainer), trainer.table.values.copy()
    trainer.train_epoch(1, lambda rows: None)
    assert trainer.table.values.tobytes() == before.tobytes()  # put back
    asked = triples(trainer, *drawn(trainer, 1, 8))
    rows = sorted({row for triple in asked for fields in triple for values in fields for row, _ in values})
    first = gradient(lambda w: oracle.bpr_loss(w, asked), before, rows)
    moved = before.astype(np.float64)
    for r in rows:
        length = float(np.sqrt((first[r, :-1] ** 2).sum()))
        if length > 0:
            moved[r, :-1] += 0.7 * first[r, :-1] / length
    second = gradient(lambda w: oracle.bpr_loss(w, asked), moved, rows)
    l2 = gradient(lambda w: oracle.occurrence_l2(w, asked, 0.01), before, rows)
    assert np.abs(captured.grad[0] - (first + 2.0 * second + l2)).max() < 1e-5
    assert np.abs(second - first).max() > 1e-3


@pytest.mark.parametrize("log", ["mixed", "implicit"])
def test_sharpcf_pulls_each_pair_towards_its_own_score_of_some_epochs_ago(
    log: str, request: pytest.FixtureRequest
) -> None:
    settings = replace(SETTINGS, method="sharpcf", batch_size=FULL, trajectory_weight=0.8, trajectory_epochs=2)
    trainer = PairwiseTrainer(request.getfixturevalue(log), settings)
    cut(trainer, 10)
    captured = Captured(trainer)
    tables = []
    for epoch in range(1, 5):
        tables.append(trainer.table.values.copy())
        trainer.train_epoch(epoch, lambda rows: None)
        trainer.table.values += np.float32(0.05) * np.random.default_rng(epoch).standard_normal(
            trainer.table.values.shape, dtype=np.float32
        )
    for epoch in range(1, 5):
        order, negatives = drawn(trainer, epoch, 10)
        asked, table = triples(trainer, order, negatives), tables[epoch - 1]
        weight = 0.8 if epoch > 2 else 0.0  # nothing is known of two epochs ago before
        past = [0.0] * 10
        if weight:
            past = [oracle.fm(weights_of(tables[epoch - 3]), [*t[0], *t[1]]) for t in asked]
        rows = sorted({row for triple in asked for fields in triple for values in fields for row, _ in values})

        def loss(w: Weights, asked: Any = asked, past: Any = past, weight: float = weight) -> float:
            pulled = weight * oracle.trajectory_loss(w, asked, past)
            return oracle.bpr_loss(w, asked) + pulled + oracle.occurrence_l2(w, asked, 0.01)

        expected = gradient(loss, table, rows)
        assert np.abs(captured.grad[epoch - 1] - expected).max() < 1e-5, epoch


@pytest.mark.parametrize("method", PAIRWISE)
@pytest.mark.parametrize("log", ["mixed", "implicit"])
def test_shared_negatives_have_the_gradient_of_each_pairs_mean_over_those_it_may_have(
    log: str, method: str, request: pytest.FixtureRequest
) -> None:
    """Some items for all pairs of the batch; APR's and SharpCF's own terms as above."""
    shared = {"mixed": 8, "implicit": 20}[log]
    settings = replace(SETTINGS, method=method, batch_size=FULL, shared_negatives=shared, trajectory_epochs=1,
                       trajectory_weight=0.8, perturbation=0.7)  # fmt: skip
    trainer = PairwiseTrainer(request.getfixturevalue(log), settings)
    cut(trainer, 9)
    captured, table = Captured(trainer), trainer.table.values.copy()
    trainer.train_epoch(1, lambda rows: None)
    negatives = trainer.shared_negatives(1, 0).copy()
    assert len(set(negatives.tolist())) == shared
    order = np.random.default_rng([1, 1]).permutation(9)
    own = {(int(u), int(i)) for u, i in zip(trainer.pairs.user, trainer.pairs.item, strict=True)}
    own |= {(u, int(i)) for u in range(len(trainer.own.indptr) - 1)
            for i in trainer.own.items[trainer.own.indptr[u] : trainer.own.indptr[u + 1]]}  # fmt: skip
    asked = []
    for pair in order:
        may = [int(n) for n in negatives if (int(trainer.pairs.user[pair]), int(n)) not in own]
        if may:
            asked.append(triples(trainer, [pair] * len(may), may))
    assert min(len(one) for one in asked) < shared, "no pair has lost a negative: nothing is tested"

    def bpr(w: Weights) -> float:
        return sum(oracle.bpr_loss(w, one) for one in asked) / 9

    def l2(w: Weights) -> float:
        return sum(oracle.occurrence_l2(w, one, 0.01) for one in asked) / 9

    rows = sorted({r for one in asked for triple in one for fields in triple for values in fields for r, _ in values})
    expected = gradient(lambda w: bpr(w) + l2(w), table, rows)
    if method == "apr":
        first = gradient(bpr, table, rows)
        moved = table.astype(np.float64)
        for r in rows:
            moved[r, :-1] += 0.7 * first[r, :-1] / max(1e-30, float(np.sqrt((first[r, :-1] ** 2).sum())))
        expected = expected + gradient(bpr, moved, rows)
    assert np.abs(captured.grad[0] - expected).max() < 1e-5 and np.abs(expected).max() > 1e-3
    if method == "sharpcf":

        def kept(drawn: Any) -> list[int]:
            user = trainer.pairs.user
            return [int(p) for p in order if any((int(user[p]), int(n)) not in own for n in drawn)]

        first = kept(negatives)
        one_each = triples(trainer, first, [negatives[0]] * len(first))
        then = [oracle.fm(weights_of(table), [*t[0], *t[1]]) for t in one_each]
        assert trainer.ring[0, first] == pytest.approx(then, abs=1e-5)
        trainer.table.values += np.float32(0.1)
        before = trainer.ring.copy()
        trainer.train_epoch(2, lambda rows: None)
        without = PairwiseTrainer(request.getfixturevalue(log), replace(settings, method="bpr"))
        cut(without, 9)
        without.table.values[...] = trainer.table.values
        plain = Captured(without)
        without.train_epoch(2, lambda rows: None)
        second = kept(trainer.shared_negatives(2, 0))
        again, past = triples(trainer, second, [negatives[0]] * len(second)), before[0, second].tolist()
        weight = 0.8 * len(second) / 9
        rows = sorted({r for triple in again for fields in triple for values in fields for r, _ in values})
        pull = gradient(lambda w: weight * oracle.trajectory_loss(w, again, past), trainer.table.values, rows)
        assert np.abs(captured.grad[1] - plain.grad[0] - pull).max() < 1e-5 and np.abs(pull).max() > 1e-3


def test_l2_of_the_whole_table_is_owed_for_the_steps_that_left_a_row_alone(implicit: Prepared) -> None:
    settings = replace(SETTINGS, batch_size=16, l2=0.0, l2_linear=0.0)
    free = PairwiseTrainer(implicit, settings)
    held = PairwiseTrainer(implicit, replace(settings, l2=0.003, l2_linear=0.001, l2_scope="all"))
    plain, owed = Captured(free), Captured(held)  # no step is taken: gradients differ by the L2 alone
    for trainer in (free, held):
        trainer.train_epoch(1, lambda rows: None)
    table, last = free.table.values, np.zeros(len(free.table.values))
    seen = 0
    for step, (without, with_l2) in enumerate(zip(plain.grad, owed.grad, strict=True), start=1):
        touched = np.flatnonzero(np.abs(with_l2 - without).sum(1) > 0)
        waited = (step - last[touched])[:, None]
        weight = np.array([0.003] * 4 + [0.001])
        assert (with_l2 - without)[touched] == pytest.approx(waited * weight * table[touched], abs=1e-6)
        last[touched], seen = step, max(seen, int(waited.max(initial=0)))
    assert seen > 3 and len(plain.grad) > 10


def test_loss_and_gradient_at_any_table(mixed: Prepared) -> None:
    trainer = PairwiseTrainer(mixed, replace(SETTINGS, shared_negatives=5))
    pairs = np.arange(12)
    negatives = trainer.negatives(pairs, 0)
    keep = pairs[negatives >= 0]
    asked = triples(trainer, keep, negatives[keep])
    table = trainer.table.values
    assert trainer.loss(table, pairs, negatives) == pytest.approx(oracle.bpr_loss(weights_of(table), asked), rel=1e-6)
    rows = sorted({r for triple in asked for fields in triple for values in fields for r, _ in values})
    expected = gradient(lambda w: oracle.bpr_loss(w, asked), table, rows) * len(keep) / len(pairs)
    assert np.abs(trainer.gradient(pairs, negatives) - expected).max() < 2e-6
    assert not trainer.table.grad.any() and trainer.shared is not None


def test_methods_are_bpr_until_their_start(implicit: Prepared) -> None:
    tables = {}
    for method in PAIRWISE:
        trainer = PairwiseTrainer(implicit, replace(SETTINGS, method=method, start_epoch=3, epochs=5, patience=9))
        found = []
        trainer.run(lambda t, report, best, found=found: found.append(t.table.values.tobytes()))
        tables[method] = found
    for epoch in range(5):
        same = len({tables[m][epoch] for m in PAIRWISE})
        assert same == (1 if epoch < 3 else 3), epoch


def test_one_feature_a_side_is_the_general_case(implicit: Prepared) -> None:
    for method in PAIRWISE:
        fast, general = (
            PairwiseTrainer(implicit, replace(SETTINGS, method=method, epochs=3, batch_size=16)) for _ in range(2)
        )
        assert fast._add is kernels.add_gradients_single
        general._add = kernels.add_gradients
        for trainer in (fast, general):
            trainer.run(lambda *_: None)
        assert np.abs(fast.table.values - general.table.values).max() < 2e-4, method


def test_negatives_are_never_the_users_own_and_depend_on_seed_epoch_and_pair_alone(implicit: Prepared) -> None:
    trainer = PairwiseTrainer(implicit, SETTINGS)
    n = len(trainer.pairs)
    own = {(int(u), int(i)) for u, i in zip(trainer.pairs.user, trainer.pairs.item, strict=True)}
    drawn = [trainer.negatives(np.arange(n), epoch) for epoch in range(1, 200)]
    for negatives in drawn:
        assert not own & {(int(u), int(i)) for u, i in zip(trainer.pairs.user, negatives, strict=True)}
    has = np.array([[(u, i) in own for i in range(40)] for u in range(30)])
    chance = (~has / (~has).sum(1, keepdims=True))[trainer.pairs.user]  # uniform over what each user does not have
    expected, variance = len(drawn) * chance.sum(0), len(drawn) * (chance * (1 - chance)).sum(0)
    counts = np.bincount(np.concatenate(drawn), minlength=40)
    assert np.abs((counts - expected) / np.sqrt(variance)).max() < 4
    order = np.random.default_rng(5).permutation(n)
    assert (trainer.negatives(order, 7) == trainer.negatives(np.arange(n), 7)[order]).all()
    assert (trainer.negatives(order, 7) != trainer.negatives(order, 8)).mean() > 0.8


def test_a_user_who_has_everything_gives_no_triple() -> None:
    out = np.empty(2, dtype=np.int32)
    arguments = (np.array([0, 2, 3]), np.array([0, 1, 0], np.int32), np.array([0, 1], np.int32))
    kernels.draw_negatives(np.uint64(1), np.arange(2), np.array([0, 1], np.int32), *arguments, out)
    assert out.tolist() == [-1, 1]


@pytest.mark.parametrize("method", PAIRWISE)
def test_every_method_learns_the_parity_of_users_and_items(implicit: Prepared, tmp_path: Path, method: str) -> None:
    settings = replace(SETTINGS, method=method, epochs=60, patience=60, start_epoch=20, eval_every=20, linear=False,
                       l2=0.001)  # fmt: skip
    run = fit(implicit, settings, tmp_path / method)
    assert [h["epoch"] for h in run.history] == [20, 40, 60]
    assert run.metrics["test"]["recall@10"] > 0.6  # by chance a third
    assert run.metrics["test"]["users"] == 30 and run.metrics["test"]["rows"] == 90


class Stop(Exception):
    pass


@pytest.mark.parametrize("method", PAIRWISE)
@pytest.mark.parametrize(
    ("log", "optimiser", "shared"), [("mixed", "adagrad", 0), ("implicit", "adam", 0), ("mixed", "adam", 5)]
)
def test_resumed_equals_uninterrupted_to_the_byte(
    log: str, optimiser: str, shared: int, method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    prepared = request.getfixturevalue(log)
    settings = replace(SETTINGS, method=method, optimiser=optimiser, epochs=6, patience=6, eval_every=2,
                       trajectory_epochs=2, start_epoch=1, learning_rate=0.05, shared_negatives=shared,
                       l2_scope="all" if shared else "touched")  # fmt: skip

    def on_epoch(report: Any, best: bool) -> None:
        if report.epoch == 4:
            raise Stop

    whole = fit(prepared, settings, tmp_path / "whole")
    with pytest.raises(Stop):
        fit(prepared, settings, tmp_path / "parts", on_epoch=on_epoch)
    parts = fit(prepared, settings, tmp_path / "parts", resume=True)
    assert whole.metrics == parts.metrics and len(parts.history) == 3
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        found = [read_arrays(tmp_path / folder / name)[0] for folder in ("whole", "parts")]
        for key, array in found[0].items():
            assert array.tobytes() == found[1][key].tobytes(), (name, key)
    assert ("trajectory" in found[0]) == (method == "sharpcf")
    other = fit(prepared, replace(settings, seed=2), tmp_path / "other")
    assert other.metrics != whole.metrics


def test_early_stopping_waits_for_the_start(implicit: Prepared) -> None:
    late = replace(SETTINGS, method="apr", epochs=40, patience=2, learning_rate=1e-6, start_epoch=8)
    trainer = PairwiseTrainer(implicit, late)
    state = trainer.run(lambda *_: None)
    assert state.best_epoch < 8 and state.epoch == 10


def test_memory_of_the_past_scores() -> None:
    assert trajectory_bytes(replace(SETTINGS, method="sharpcf", trajectory_epochs=3), 1000) == 12_000
    assert trajectory_bytes(SETTINGS, 1000) == 0


def test_data_that_pairwise_methods_cannot_take_are_named(tmp_path: Path, mixed: Prepared) -> None:
    (tmp_path / "rating").mkdir()
    with pytest.raises(UsageError, match=r"expected positives \(\[label\] of kind implicit or binary\), found ratings"):
        Interactions(prepare_log(tmp_path / "rating", label="rating"))
    spec = (Path(mixed.path).parent / "spec.toml").read_text()
    changes = {
        "a user field": ('[users]\nid_field = "user"\n', ""),
        "a catalogue": ('[items]\nid_field = "item"\n', ""),
        "min_count 1 for 'item'": ('name = "item"\nside = "item"\n', 'name = "item"\nside = "item"\nmin_count = 5\n'),
    }
    for number, (message, (old, new)) in enumerate(changes.items()):
        assert old in spec
        (tmp_path / "spec.toml").write_text(spec.replace(old, new))
        with pytest.raises(UsageError, match=f"pairwise training: expected {message}"):
            Interactions(prepare(tmp_path / "spec.toml", Path(mixed.path).parent, tmp_path / f"p{number}").open())


def test_a_run_opens_again(implicit: Prepared, tmp_path: Path) -> None:
    fit(implicit, replace(SETTINGS, epochs=1), tmp_path)
    run = Run.open(tmp_path)
    assert run.settings.loss == "pairwise" and run.calibration.kind == "none"
