"""A log cut to its first rows: so many of each file, and no more is read than need be."""

from __future__ import annotations

import numpy as np

from tests.training.prepared_log import write_log
from training.prepare import prepare
from training.raw_log import open_log
from training.raw_log.chunk import Chunk, Rejected
from training.raw_log.first_rows import FirstRows
from training.spec import load_spec


def test_prepares_the_first_rows_under_a_fingerprint_of_its_own(tmp_path):
    spec = write_log(tmp_path)
    whole = prepare(spec, tmp_path, tmp_path / "whole").open()
    cut = prepare(spec, tmp_path, tmp_path / "cut", first_rows=50).open()
    kept = np.concatenate([cut.split(name).row_number for name in ("train", "valid", "test")])
    assert sorted(kept.tolist()) == list(range(50)) and whole.info["rows"] == 900
    assert cut.fingerprint != whole.fingerprint
    more = prepare(spec, tmp_path, tmp_path / "more", first_rows=51).open()
    assert more.fingerprint != cut.fingerprint


class TwoFiles:
    """Two files of four chunks of three rows each; counts what is read."""

    columns, own_items = ("a",), False

    def __init__(self, folder):
        self.paths = (folder / "one", folder / "two")
        self.read = 0

    def chunks(self, columns, rejected):
        for path in self.paths:
            for start in range(0, 12, 3):
                self.read += 1
                yield Chunk(path.name, {}, np.arange(start, start + 3), np.arange(start, start + 3) + 1)

    def items(self):
        return None


def test_each_file_gives_its_first_rows_and_the_last_is_not_read_to_its_end(tmp_path):
    for limit, read in ((3, 5), (4, 6), (11, 8), (12, 8), (99, 8)):
        log = TwoFiles(tmp_path)
        chunks = list(FirstRows(log, limit).chunks(("a",), Rejected()))
        rows = [[r for c in chunks if c.file == name for r in c.rows.tolist()] for name in ("one", "two")]
        assert rows == [list(range(min(limit, 12)))] * 2
        assert log.read == read


def test_rows_of_a_real_log_are_those_of_the_whole(tmp_path):
    log = open_log(load_spec(write_log(tmp_path)), tmp_path)
    cut = FirstRows(log, 7)
    assert (cut.columns, cut.paths, cut.own_items) == (log.columns, log.paths, log.own_items)
    (chunk,) = cut.chunks(["user"], Rejected())
    first = next(iter(log.chunks(["user"], Rejected())))
    assert chunk.columns["user"].to_pylist() == first.columns["user"].to_pylist()[:7]
