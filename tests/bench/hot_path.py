"""Where the time of a rank request goes, without HTTP: `python -m tests.bench.hot_path`.

One DPLR model (rank 3, k = 8), 25 context and 38 item fields, a catalogue of 100,000 items, 1,000 ids of it per
request, top 10; a fresh slate each time. Each stage in microseconds, beside all of them, and beside the one call that
answers usual requests; then inline items by column and by row, 1,000 x 38 string values, beside merely decoding them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models_export.encoded import EncodedSide
from models_export.fields import FieldEncoder
from models_export.items import Items
from models_export.manifest import FieldSpec, Manifest
from models_export.reader import Artefact, read_artefact
from models_export.string_table import StringTable
from models_export.weights import Weights
from models_export.writer import write_artefact
from service.ranking import Meters, RankingModel

N_CONTEXT, N_ITEM, N_CATALOGUE, N_SLATE = 25, 38, 100_000, 1000
CONTEXT_VALUES, ITEM_VALUES = 4000, 2500


def artefact(folder: Path, seed: int = 0) -> Artefact:
    """A DPLR model of random weights with a random catalogue; item ids are "item-<number>"."""
    rng = np.random.default_rng(seed)
    fields = [FieldSpec(f"context_{i}", "context", "categorical", 2) for i in range(N_CONTEXT)]
    fields += [FieldSpec(f"item_{i}", "item", "categorical", 2) for i in range(N_ITEM)]
    encoder = FieldEncoder.build(
        fields,
        {
            f.name: [f"{f.name}_v{j}" for j in range(CONTEXT_VALUES if f.side == "context" else ITEM_VALUES)]
            for f in fields
        },
    )
    n, m, k = encoder.n_features, len(fields), 8

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.1).astype(np.float32)

    weights = Weights("dplr", draw(n, k), draw(n), -1.0, None, draw(3, m), draw(3))
    manifest = Manifest(name="bench", family="dplr", loss="logistic", dim=k, rank=3, fields=encoder.fields)
    rows = encoder.offsets[N_CONTEXT:-1] + rng.integers(0, ITEM_VALUES + 2, (N_CATALOGUE, N_ITEM))
    side = EncodedSide.without_multi(rows.astype(np.int32))
    ids = StringTable.build([f"item-{i * 7919}" for i in range(N_CATALOGUE)], 0)
    write_artefact(folder, manifest, weights, encoder, Items(ids, side))
    return read_artefact(folder)


def best_us(call: Callable[[Any], Any], inputs: list[Any], rounds: int = 15) -> float:
    """Mean time of one call in microseconds of this thread's processor time, in the best of ``rounds`` (others may
    share the machine)."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for value in inputs:
            call(value)
        times.append((time.thread_time() - start) / len(inputs) * 1e6)
    return min(times)


class _Body(msgspec.Struct):
    context: msgspec.Raw
    item_ids: msgspec.Raw
    top_k: int


def hot_path(model: RankingModel, rng: np.random.Generator, requests: int = 200) -> dict[str, float]:
    """Stages of a request by catalogue ids, in microseconds."""
    bodies = [
        msgspec.json.encode(
            {
                "context": {f"context_{i}": f"context_{i}_v{rng.integers(CONTEXT_VALUES)}" for i in range(N_CONTEXT)},
                "item_ids": [f"item-{v * 7919}" for v in rng.choice(N_CATALOGUE, N_SLATE, replace=False).tolist()],
                "top_k": 10,
            }
        )
        for _ in range(requests)
    ]
    decoder = msgspec.json.Decoder(_Body)
    parsed = [decoder.decode(b) for b in bodies]
    contexts = [model.encode_context(b.context) for b in parsed]
    state = model.context_state(contexts[0])
    indices = [model._look_up.resolve(b.item_ids, "item_ids")[0] for b in parsed]
    ranked = [model.rank_ids(state, b.item_ids, 10) for b in parsed]

    one_call = model.whole_request("bench", b'{"items":', Meters.discarded())
    assert one_call is not None and all(one_call.answer(b, 0.0) for b in bodies)

    def steps(body: bytes) -> bytes:
        request = decoder.decode(body)
        s = model.context_state(model.encode_context(request.context))
        return model.rank_ids(s, request.item_ids, request.top_k).to_json_items()

    return {
        "decode body (values undecoded)": best_us(decoder.decode, bodies),
        "encode context": best_us(lambda b: model.encode_context(b.context), parsed),
        "context state": best_us(model.context_state, contexts),
        "resolve ids": best_us(lambda b: model._look_up.resolve(b.item_ids, "item_ids"), parsed),
        "score and top 10": best_us(
            lambda i: model.scorer.top_index(state, model.catalogue.g, model.catalogue.beta, i, 10), indices
        ),
        "probabilities": best_us(lambda r: model._probabilities(r.scores), ranked),
        "reply": best_us(lambda r: r.to_json_items(), ranked),
        "rank_ids (resolve .. probabilities)": best_us(lambda b: model.rank_ids(state, b.item_ids, 10), parsed),
        "all steps": best_us(steps, bodies),
        "in one call": best_us(lambda b: one_call.answer(b, 0.0), bodies),
    }


def inline(model: RankingModel, rng: np.random.Generator) -> dict[str, float]:
    """Inline items by column and by row, beside decoding them, in microseconds."""
    state = model.context_state(model.encode_context(b"{}"))
    bodies_columns, bodies_rows = [], []
    for _ in range(4):
        ids = [f"x{i}" for i in range(N_SLATE)]
        values = rng.integers(0, ITEM_VALUES, (N_ITEM, N_SLATE)).tolist()
        columns = {f"item_{j}": [f"item_{j}_v{v}" for v in values[j]] for j in range(N_ITEM)}
        rows = [{"id": x, "fields": {f: columns[f][i] for f in columns}} for i, x in enumerate(ids)]
        bodies_columns.append(msgspec.json.encode({"ids": ids, "fields": columns}))
        bodies_rows.append(msgspec.json.encode(rows))
    typed = msgspec.json.Decoder(dict[str, Any])
    return {
        "decode columns": best_us(typed.decode, bodies_columns),
        "rank columns": best_us(lambda b: model.rank_columns(state, b, 10).to_json_items(), bodies_columns),
        "decode rows": best_us(msgspec.json.decode, bodies_rows),
        "rank rows": best_us(lambda b: model.rank_items(state, b, 10).to_json_items(), bodies_rows),
    }


def main() -> None:
    """Print the tables."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        model = RankingModel.load(artefact(Path(folder) / "bench"))
        model.warm()
        for title, table in (("1,000 catalogue ids", hot_path(model, rng)), ("inline items", inline(model, rng))):
            print(title)
            for stage, us in table.items():
                print(f"  {stage:38s} {us:9.1f} us")


if __name__ == "__main__":
    main()
