"""Model families, one module each. ``FAMILIES`` is the registry: name -> class."""

from __future__ import annotations

from training.models.afm import AttentionalFM
from training.models.base import FactorModel, Model, ModelShape, Table
from training.models.dcn import DeepAndCross
from training.models.deepfm import DeepFM
from training.models.difacto import DiFacto
from training.models.dplr import DiagonalPlusLowRankFM
from training.models.fm import FactorizationMachine
from training.models.fwfm import FieldWeightedFM
from training.models.llfm import LocallyLinearFM
from training.models.nfm import NeuralFM
from training.models.pruned import PrunedFieldWeightedFM
from training.models.rafm import RankAwareFM

FAMILIES: dict[str, type[Model]] = {
    model.family: model
    for model in (
        FactorizationMachine,
        FieldWeightedFM,
        PrunedFieldWeightedFM,
        DiagonalPlusLowRankFM,
        NeuralFM,
        AttentionalFM,
        DeepAndCross,
        DeepFM,
        RankAwareFM,
        DiFacto,
        LocallyLinearFM,
    )
}

__all__ = ["FAMILIES", "FactorModel", "Model", "ModelShape", "Table"]
