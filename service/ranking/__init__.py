"""Ranking without HTTP: encode -> context state -> score -> order. Start at ``model.py``."""

from service.ranking.context import Context
from service.ranking.instances import Predictions
from service.ranking.limits import Limits
from service.ranking.model import RankingModel
from service.ranking.ranked import Ranked
from service.ranking.whole_request import Meters, WholeRequest

__all__ = ["Context", "Limits", "Meters", "Predictions", "Ranked", "RankingModel", "WholeRequest"]
