"""`ctrank-serve`: parse, call, translate errors; nothing else.

Exit codes: 0 done, 2 the user's mistake (one clear line on stderr), 1 anything else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from models_export.errors import ArtefactError
from service.bench.errors import BenchmarkError
from service.settings import Settings, SettingsError, flag

BENCHMARKS = {
    "kernels": "the scoring kernels against a C loop and the authors' NumPy formulation",
    "catalogue": "exact top k of a whole catalogue against one matrix-vector product",
    "http": "the served endpoint against a floor application with a constant reply",
    "onnx": "ONNX Runtime, on the CPU and on a GPU if there is one, against the compiled kernels",
    "cache": "a cached context state against computing it again: where it breaks even",
}
_RUN_EPILOG = """\
Every setting is a flag, or a CTRANK_ variable of the same name (--redis-url: CTRANK_REDIS_URL); a flag wins.
An unknown variable or a bad value stops the start. The server listens at once; /readyz answers 200 when every
active model is loaded and its kernels are warm. SIGTERM lets requests in flight finish.

  ctrank-serve run --registry registry
  curl -s localhost:8000/rank -H 'content-type: application/json' \\
       -d '{"context": {"user_id": "42"}, "item_ids": ["1193", "661"], "top_k": 2}'
"""


class Mistake(Exception):
    """The user's mistake: one line, exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.call(arguments)
        return code
    except (Mistake, SettingsError, ArtefactError, BenchmarkError) as error:
        print(f"ctrank-serve: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ctrank-serve",
        allow_abbrev=False,
        description="Serve factorization-machine CTR models: rank slates of items over HTTP.",
        epilog="Start with `ctrank-serve run --registry registry`, then open http://127.0.0.1:8000/docs.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="serve a registry's active models",
        description="Serve a registry's active models. A version that is activated later is served without a restart.",
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, info in Settings.model_fields.items():
        default = "" if info.default is None else f" (default {info.default})"
        text = f"{info.description}{default}".replace("%", "%%")
        if info.annotation is bool:
            run.add_argument(flag(name), dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            run.add_argument(flag(name), dest=name, metavar=name.upper(), help=text)
    run.set_defaults(call=_run)
    check = commands.add_parser(
        "check",
        allow_abbrev=False,
        help="verify an artefact",
        description="Verify an artefact as the server would before serving it, and say what it is.",
    )
    check.add_argument("artefact", metavar="ARTEFACT", type=Path, help="folder registry/<model>/<version>")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(call=_check)
    compile_ = commands.add_parser(
        "compile",
        allow_abbrev=False,
        help="compile kernels before the first start",
        description="Compile all kernels, and those that these artefacts need, into the kernel cache: for an image, or "
        "a machine, on which the first start is to take as long as any other.",
        epilog="NUMBA_CACHE_DIR places the kernels, NUMBA_CPU_NAME and NUMBA_CPU_FEATURES choose another processor.",
    )
    compile_.add_argument(
        "artefacts", metavar="ARTEFACT", type=Path, nargs="+", help="folder registry/<model>/<version>"
    )
    compile_.add_argument("--cache-dir", metavar="CACHE_DIR", help=Settings.model_fields["cache_dir"].description)
    compile_.set_defaults(call=_compile)
    bench = commands.add_parser(
        "bench",
        allow_abbrev=False,
        help="measure this machine",
        description="Measure this machine; every benchmark checks its results against its baseline's.",
        epilog="\n".join(f"  {name:<10} {text}" for name, text in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("what", choices=list(BENCHMARKS), metavar="|".join(BENCHMARKS), help="which benchmark")
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.add_argument("--quick", action="store_true", help="fewer repetitions: seconds, and less exact")
    bench.set_defaults(call=_bench)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from service.server import StartError, serve

    settings = Settings.read({name: getattr(arguments, name) for name in Settings.model_fields})
    try:
        return serve(settings)
    except StartError as error:
        raise Mistake(str(error)) from error


def _check(arguments: argparse.Namespace) -> int:
    from models_export.manifest import NETWORK_FAMILIES
    from models_export.onnx_files import GRAPHS, has_graphs
    from models_export.reader import read_artefact
    from service.scorers.choice import EXPORT

    artefact = read_artefact(arguments.artefact)
    manifest = artefact.manifest
    scorers = [] if manifest.family in NETWORK_FAMILIES else ["numba"]
    scorers += ["onnx"] if has_graphs(manifest) else []
    report = {
        "artefact": str(artefact.path),
        "digest": artefact.digest,
        "model": manifest.name,
        "family": manifest.family,
        "served": bool(scorers),
        "scorers": scorers,
        "loss": manifest.loss,
        "dim": manifest.dim,
        "rank": manifest.rank,
        "ranks": None if artefact.ragged is None else list(artefact.ragged.ranks),
        "fields": {f.name: {"side": f.side, "kind": f.kind, "size": f.size} for f in manifest.fields},
        "features": manifest.n_features,
        "items": 0 if artefact.items is None else len(artefact.items),
        "graphs": list(GRAPHS) if has_graphs(manifest) else [],
        "calibration": manifest.calibration.kind,
        "metrics": dict(manifest.metrics),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    rank = "" if manifest.rank is None else f", rank {manifest.rank}"
    rank = rank if artefact.ragged is None else f", ranks {', '.join(map(str, artefact.ragged.ranks))}"
    print(f"{artefact.path}: sound")
    print(f"  model        {manifest.name} ({manifest.family}, dim {manifest.dim}{rank}, {manifest.loss} loss)")
    print(
        f"  scored by    {' or '.join(scorers)}" if scorers else f"  not served   no graphs for ONNX Runtime; {EXPORT}"
    )
    print(f"  digest       {artefact.digest}")
    print(f"  features     {manifest.n_features:,} in {len(manifest.fields)} fields; items {report['items']:,}")
    graphs = ", ".join(GRAPHS) if report["graphs"] else "none; export the model again for ONNX Runtime"
    print(f"  graphs       {graphs}")
    print(f"  calibration  {manifest.calibration.kind}")
    for name, value in manifest.metrics.items():
        print(f"  {name:<12} {value:.6g}")
    for field in manifest.fields:
        print(f"  field        {field.name}: {field.side}, {field.kind}, {field.size:,} ids")
    return 0


def _compile(arguments: argparse.Namespace) -> int:
    from service.errors import NotServable
    from service.served_model import load_model

    settings = Settings.read({"cache_dir": arguments.cache_dir})
    for folder in arguments.artefacts:
        try:
            model = load_model(folder, settings)
        except NotServable as error:
            raise Mistake(f"artefact {folder}: {error.detail}") from error
        print(f"{folder}: kernels of {model.artefact.manifest.family} are compiled")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    benchmark = importlib.import_module(f"service.bench.{arguments.what}")
    result = benchmark.run(arguments.quick)
    print(json.dumps(result, indent=2) if arguments.json else benchmark.render(result))
    return 0
