"""The live set of models: load -> warm -> swap, without a restart and without a failed request.

The registry's active pointers are read every `poll_ms`. A version that became active is loaded and warmed in a thread
while the old one serves, then swapped in by one assignment; a request keeps the model it began with. Versions that are
pinned by a request, and those that were active before, stay loadable and are kept in a bounded LRU.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from models_export.errors import ArtefactError
from models_export.registry import Registry
from service.errors import ActivationRefused, ModelUnavailable, NotReady, NotServable, UnknownModel, UnknownVersion
from service.metrics import Counter, Metrics
from service.served_model import ServedModel, load_model
from service.settings import Settings

if TYPE_CHECKING:
    from service.ranking import RankingModel

logger = logging.getLogger("ctrank")

T = TypeVar("T")
LoadModel = Callable[[Path, Settings], "RankingModel"]


class ModelSet:
    """The models that this worker serves. All methods but `load` run on the event loop's thread."""

    def __init__(self, settings: Settings, metrics: Metrics, load: LoadModel = load_model) -> None:
        self.settings = settings
        self.metrics = metrics
        self.registry = Registry(settings.registry)
        self._load = load
        self._live: dict[str, ServedModel] = {}
        self._default: ServedModel | None = None
        self._kept: OrderedDict[tuple[str, str], ServedModel] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Future[ServedModel]] = {}
        self._refused: dict[str, str] = {}  # model -> version that did not load, until the pointer moves on
        self._unserved: dict[str, str] = {}  # model -> why its active version, though sound, is not served
        self._states: dict[str, tuple[str | None, str]] = {}
        # One thread: two loads at a time would compile the same kernels twice.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ctrank-load")
        self._changing = asyncio.Lock()  # one change of what is served at a time
        self.ready = False

    # -- the hot path -------------------------------------------------------------------------------------------------

    def find(self, name: str | None, version: str | None) -> ServedModel | None:
        """The loaded model, or `None` if `fetch` must be awaited (a pinned version that is not loaded, or an error)."""
        served = self._default if name is None else self._live.get(name)
        if version is None or served is None or served.version == version:
            return served
        kept = self._kept.get((served.name, version))
        if kept is not None:
            self._kept.move_to_end((served.name, version))
        return kept

    async def fetch(self, name: str | None, version: str | None) -> ServedModel:
        """The model, loaded if it must be. Raises `UnknownModel`, `UnknownVersion`, `ModelUnavailable`, `NotReady`."""
        served = self.find(name, version)
        if served is not None:
            return served
        if not self.ready:
            raise NotReady("models are still loading or warming up; /readyz says when they are ready")
        name = name or self._default_name()
        versions = await self._in_thread(lambda: self._versions(name))
        if not versions:
            known = ", ".join(await self._in_thread(self.registry.models)) or "none"
            raise UnknownModel(f"no model {name[:128]!r} in the registry; known models: {known}", "model")
        if version is None and name in self._unserved:
            raise NotServable(self._unserved[name])
        if version is None:
            raise UnknownModel(f"model {name!r} has no active version; its versions: {', '.join(versions)}", "model")
        if version not in versions:
            newest = ", ".join(versions[-5:])
            raise UnknownVersion(f"model {name!r} has no version {version[:40]!r}; the newest are {newest}", "version")
        return await self._obtain(name, version)

    def _default_name(self) -> str:
        if self._default is not None:
            return self._default.name
        known = ", ".join(sorted(self._live)) or "none"
        raise UnknownModel(f"no default model is set; name one of: {known}", "model")

    def _versions(self, name: str) -> list[str]:
        try:
            return self.registry.versions(name)
        except ArtefactError:  # not a name that a model can have
            return []

    # -- loading ------------------------------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _obtain(self, name: str, version: str) -> ServedModel:
        """Load a version, or join the load that is under way; keep it."""
        key = (name, version)
        served = self._live.get(name)
        if served is not None and served.version == version:
            return served
        if key in self._kept:
            return self._kept[key]
        future = self._loading.get(key)
        if future is None:
            future = self._loading[key] = asyncio.ensure_future(self._load_version(name, version))
            future.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(future)

    async def _load_version(self, name: str, version: str) -> ServedModel:
        try:
            ranking = await self._in_thread(lambda: self._load(self.registry.path(name, version), self.settings))
        except Exception as error:
            self.metrics.counter("ctrank_model_load_failures", name).add()
            if isinstance(error, NotServable):
                logger.error("model %s %s is not served: %s", name, version, error.detail)
                raise NotServable(f"model {name!r} {version} is not served: {error.detail}") from error
            if isinstance(error, ArtefactError):
                logger.error("model %s %s does not load: %s", name, version, error)
                raise ModelUnavailable(f"model {name!r} {version} does not load: {error}") from error
            logger.exception("model %s %s does not load", name, version)
            raise ModelUnavailable(f"model {name!r} {version} does not load; the server's log says why") from error
        served = ServedModel(
            name,
            version,
            ranking,
            ranking.digest,
            self.metrics.counter("ctrank_candidates", name),
            self.metrics.counter("ctrank_unknown_items", name),
            ranking.n_items * ranking.scorer.vector_size,
        )
        self._keep(served)
        return served

    def _keep(self, served: ServedModel) -> None:
        self._kept[served.name, served.version] = served
        while len(self._kept) > self.settings.max_loaded_versions:
            self._kept.popitem(last=False)

    def _swap(self, served: ServedModel) -> None:
        """Serve `served` from now on; the version before it stays loaded for pins and for a roll-back."""
        old = self._live.get(served.name)
        self._live[served.name] = served
        self._kept.pop((served.name, served.version), None)
        if old is not None and old is not served:
            self._keep(old)
            for info in self._infos(old):
                info.set(0)
        for info in self._infos(served):
            info.set(1)
        only = next(iter(self._live.values())) if len(self._live) == 1 else None
        self._default = self._live.get(self.settings.default_model) if self.settings.default_model else only
        how = served.ranking.scorer
        logger.info(
            "model %s: serving %s (%s) by %s on %s", served.name, served.version, served.digest, how.name, how.provider
        )

    def _infos(self, served: ServedModel) -> tuple[Counter, Counter]:
        family, scorer = served.ranking.artefact.manifest.family, served.ranking.scorer
        return (
            self.metrics.counter("ctrank_model_info", served.name, served.version, family),
            self.metrics.counter("ctrank_scorer_info", served.name, scorer.name, scorer.provider),
        )

    # -- following the registry ---------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Load, warm and swap in whatever became active. Raises the first error, after all others are in place."""
        async with self._changing:
            await self._refresh()

    async def _refresh(self) -> None:
        pointers = await self._in_thread(self._pointers)
        failure: Exception | None = None
        for name, version in pointers.items():
            served = self._live.get(name)
            if version is None or (served is not None and served.version == version):
                self._states.setdefault(name, (version, "no active version"))
                self._refused.pop(name, None)
                continue
            if self._refused.get(name) == version:
                continue
            self._states[name] = (version, "loading")
            try:
                self._swap(await self._obtain(name, version))
            except ModelUnavailable as error:
                self._refused[name] = version
                self._states[name] = (version, f"failed: {error.detail}")
                if isinstance(error, NotServable):
                    self._unserved[name] = error.detail
                else:
                    failure = failure or error
            else:
                self._unserved.pop(name, None)
                self._states[name] = (version, "ready")
        if failure is not None:
            raise failure

    def _pointers(self) -> dict[str, str | None]:
        pointers: dict[str, str | None] = {}
        for name in self.registry.models():
            try:
                pointers[name] = self.registry.active(name)
            except ArtefactError as error:
                logger.error("model %s: %s", name, error)
        return pointers

    async def start(self) -> None:
        """The first load; ready when every active model is warm. Raises `ModelUnavailable`, `UnknownModel`."""
        await self.refresh()
        if self.settings.wait_for_model and not self._is_served():
            logger.info("registry %s: waiting for %s", self.settings.registry, self.settings.default_model or "a model")
            while not self._is_served():
                await asyncio.sleep(self.settings.poll_ms / 1000)
                await self.refresh()
        if not self._live and self._unserved:
            raise NotServable("; ".join(self._unserved.values()))
        if not self._live:
            raise UnknownModel(f"registry {self.settings.registry}: expected an active model, found none")
        default = self.settings.default_model
        if default is not None and default not in self._live:
            raise UnknownModel(f"default model {default!r}: expected one of {sorted(self._live)}")
        gc.collect()
        gc.freeze()  # what is loaded now stays: the collector need not walk through it again and again
        self.ready = True
        self.metrics.counter("ctrank_ready_workers").set(1)

    def _is_served(self) -> bool:
        """Whether there is a model, and the default one where it is named."""
        return bool(self._live) and self.settings.default_model in (None, *self._live)

    async def watch(self) -> None:
        """Follow the registry until cancelled; a version that does not load is reported once, the old one serves on."""
        while True:
            await asyncio.sleep(self.settings.poll_ms / 1000)
            try:
                await self.refresh()
            except (ModelUnavailable, OSError) as error:
                logger.error("the registry's change is not served: %s", error)

    # -- administration -----------------------------------------------------------------------------------------------

    async def activate(self, name: str, version: str) -> tuple[str, str | None]:
        """Make a version active, here at once and in other workers within `poll_ms`. It is loaded and warmed first, so
        a version that does not load is refused. Returns (active, the one before)."""
        try:
            served = await self.fetch(name, version)
        except ModelUnavailable as error:
            raise ActivationRefused(error.detail, "version") from error
        async with self._changing:
            before = await self._in_thread(lambda: self.registry.active(name))
            try:
                await self._in_thread(lambda: self.registry.activate(name, version))
            except OSError as error:
                raise self._not_writable(error) from error
            self._swap(served)
            self._states[name] = (version, "ready")
        return version, before

    async def rollback(self, name: str) -> tuple[str, str | None]:
        """Make the version active that was so before the active one. Returns (active, the one before)."""
        if not await self._in_thread(lambda: self._versions(name)):
            await self.fetch(name, None)
        async with self._changing:
            before = await self._in_thread(lambda: self.registry.active(name))
            try:
                version = await self._in_thread(lambda: self.registry.rollback(name))
            except ArtefactError as error:
                raise ActivationRefused(str(error)) from error
            except OSError as error:
                raise self._not_writable(error) from error
            try:
                served = await self._obtain(name, version)
            except ModelUnavailable as error:
                if before is not None:
                    await self._in_thread(lambda: self.registry.activate(name, before))
                raise ActivationRefused(error.detail) from error
            self._swap(served)
            self._states[name] = (version, "ready")
        return version, before

    def _not_writable(self, error: OSError) -> ActivationRefused:
        """A registry that is mounted read-only, say: its pointers are moved where models are published."""
        reason = error.strerror or str(error)
        return ActivationRefused(f"registry {self.settings.registry}: expected it to be writable, found: {reason}")

    def states(self) -> dict[str, tuple[str | None, str]]:
        """Model -> (version, state), for `/readyz`."""
        return dict(self._states)

    def is_loaded(self, name: str, version: str) -> bool:
        """Whether this worker holds the version in memory."""
        live = self._live.get(name)
        return (live is not None and live.version == version) or (name, version) in self._kept

    def live(self, name: str) -> ServedModel | None:
        """The active version of a model as this worker serves it."""
        return self._live.get(name)

    def is_default(self, name: str) -> bool:
        """Whether requests that name no model get this one."""
        return self._default is not None and self._default.name == name

    def close(self) -> None:
        """Stop the loading thread; does not wait for a load under way."""
        self._thread.shutdown(wait=False, cancel_futures=True)
