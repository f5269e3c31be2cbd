"""Verdicts follow the figures: every kind of claim holds for some and not for others."""

import pytest
from scipy import stats

from training.claims import Claim
from training.errors import UsageError
from training.paired_test import paired_p, two_sided_p


class Figures:
    """Rows of auc (higher is better) and mse (lower is better)."""

    def __init__(self, **rows):
        self.rows = rows

    def values(self, label, metric):
        return dict(enumerate(self.rows[label], 1))

    def published(self, label, column, metric):
        return 0.5 if column == "paper" else None


def verdict(claim, metric="auc", **rows):
    return Claim.parse(claim, metric).check(Figures(**rows))


@pytest.mark.parametrize(
    ("claim", "metric", "holding", "failing"),
    [
        ({"better": "A", "than": "B"}, "auc", ([0.6, 0.7], [0.5, 0.6]), ([0.5, 0.6], [0.6, 0.5001])),
        ({"better": "A", "than": "B"}, "mse", ([0.5, 0.6], [0.6, 0.7]), ([0.6, 0.7], [0.5, 0.6])),
        ({"better": "A", "than": "B", "by": 0.05}, "mse", ([0.95], [1.0]), ([0.96], [1.0])),
        ({"better": "A", "than": "B", "by": 0.05}, "auc", ([0.841], [0.8]), ([0.839], [0.8])),
        (
            {"better": "A", "than": "B", "significance": 0.05},
            "auc",
            ([0.70, 0.71, 0.72], [0.60, 0.61, 0.621]),
            ([0.70, 0.60, 0.72], [0.60, 0.61, 0.62]),
        ),
        ({"order": ["A", "B"]}, "auc", ([0.6], [0.5]), ([0.5], [0.5])),
        ({"best": "A", "of": ["B"]}, "mse", ([0.1], [0.2]), ([0.2], [0.1])),
        ({"row": "A", "near": "paper", "within": 0.05}, "auc", ([0.476], []), ([0.474], [])),
        ({"row": "A", "near": "paper", "within": 0.05}, "auc", ([0.524], []), ([0.526], [])),
        ({"row": "A", "over": "B", "at_most": 1.1}, "mse", ([1.1], [1.0]), ([1.2], [1.0])),
        ({"row": "A", "over": "B", "at_least": 1.1}, "mse", ([1.2], [1.0]), ([1.0], [1.0])),
        ({"row": "A", "at_least": 0.98}, "auc", ([0.98, 0.98], []), ([0.98, 0.97], [])),
        ({"row": "A", "at_most": 0.3}, "mse", ([0.3], []), ([0.31], [])),
    ],
)
def test_each_kind_holds_and_fails(claim, metric, holding, failing):
    assert verdict(claim, metric, A=holding[0], B=holding[1]).holds
    assert not verdict(claim, metric, A=failing[0], B=failing[1]).holds


def test_a_ratio_to_nothing_is_not_small():
    assert not verdict({"row": "A", "over": "B", "at_most": 1.1}, A=[0.1], B=[0.0]).holds


def test_an_order_and_a_best_look_at_every_row():
    rows = {"A": [0.9], "B": [0.7], "C": [0.8]}
    assert not verdict({"order": ["A", "B", "C"]}, **rows).holds
    assert verdict({"order": ["A", "C", "B"]}, **rows).holds
    assert verdict({"best": "A", "of": ["B", "C"]}, **rows).holds
    assert not verdict({"best": "C", "of": ["B", "A"]}, **rows).holds


def test_a_verdict_says_its_figures():
    found = verdict({"better": "A", "than": "B", "metric": "mse"}, A=[0.4, 0.5], B=[0.5, 0.5, 9.0])
    assert str(found) == (
        "A beats B on mse: **holds** (mean gain +0.05000, +10.00%; better on 1 of 2 seeds, paired t-test p = 0.5)"
    )
    found = verdict({"row": "A", "near": "paper", "within": 0.05}, A=[0.6])
    assert str(found) == ("A within 5.0% of the auc in 'paper': **does NOT hold** (A 0.6000 against 0.5, +20.00%)")
    assert "no paired test with one seed" in str(verdict({"better": "A", "than": "B"}, A=[0.6], B=[0.5]))


@pytest.mark.parametrize(
    "claim",
    [
        {},
        {"metric": "auc"},
        {"better": "A"},
        {"better": "A", "than": "B", "within": 0.1},
        {"row": "A"},
        {"row": "A", "over": "B"},
        {"row": "A", "near": "paper"},
        {"better": "A", "than": "B", "metric": "beauty"},
    ],
)
def test_what_is_no_claim_is_refused(claim):
    with pytest.raises(UsageError):
        Claim.parse(claim, "auc")


def test_students_distribution():
    for freedom in range(1, 30):
        for t in (-3.0, 0.0, 0.3, 1.0, 2.5, 12.0):
            assert two_sided_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-14)


def test_paired_test():
    differences = [0.01, 0.02, -0.005, 0.013]
    assert paired_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, abs=1e-14)
    assert paired_p([0.1]) is None
    assert paired_p([0.0, 0.0]) == 1.0 and paired_p([0.1, 0.1]) == 0.0
