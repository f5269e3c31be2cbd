"""A kustomization's documents, as `kubectl kustomize` puts them together, for the features that ours use.

    resources, components -> strategic merge of patches -> config maps from files and literals -> image tags, namespace

The hash that kustomize appends to a config map's name is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.deploy.files import documents, load

Document = dict[str, Any]
KNOWN = {
    *("apiVersion", "kind", "namespace", "resources", "components", "patches", "configMapGenerator", "images"),
}


def build(folder: Path) -> list[Document]:
    """All documents of the kustomization in ``folder``."""
    rules = load(folder / "kustomization.yaml")
    assert set(rules) <= KNOWN, f"{folder}: {set(rules) - KNOWN} is not known here"
    found: list[Document] = []
    for name in rules.get("resources", []):
        path = folder / name
        found += build(path) if path.is_dir() else documents(path)
    apply(folder, rules, found)
    for name in rules.get("components", []):
        apply(folder / name, load(folder / name / "kustomization.yaml"), found)
    apply_patches(folder, rules, found)
    for document in found:
        if "namespace" in rules and document["kind"] != "Namespace":
            document["metadata"]["namespace"] = rules["namespace"]
    return found


def apply(folder: Path, rules: Document, found: list[Document]) -> None:
    """Config maps and images; for a component its patches too."""
    for generator in rules.get("configMapGenerator", []):
        values: dict[str, str] = {}
        for name in generator.get("envs", []):
            values |= dict(line.split("=", 1) for line in (folder / name).read_text().split())
        values |= dict(line.split("=", 1) for line in generator.get("literals", []))
        if generator.get("behavior") == "merge":
            target(found, "ConfigMap", generator["name"])["data"] |= values
        else:
            metadata = {"name": generator["name"]}
            found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": values})
    for image in rules.get("images", []):
        for container in containers(found):
            if container["image"] == image["name"]:
                container["image"] += f":{image['newTag']}"
    if rules["kind"] == "Component":
        apply_patches(folder, rules, found)


def apply_patches(folder: Path, rules: Document, found: list[Document]) -> None:
    """Merge each patch into the document that it names."""
    for patch in rules.get("patches", []):
        changes = load(folder / patch["path"])
        merge(target(found, changes["kind"], changes["metadata"]["name"]), changes)


def merge(into: Document, changes: Document) -> None:
    """Objects are merged, everything else is replaced: our patches have no lists that kustomize merges by a key."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def target(found: list[Document], kind: str, name: str) -> Document:
    """The document of this kind and name."""
    fit = [d for d in found if d["kind"] == kind and d["metadata"]["name"] == name]
    assert len(fit) == 1, f"{kind} {name}: expected one, found {len(fit)}"
    return fit[0]


def containers(found: list[Document]) -> list[Document]:
    """The containers of all pods."""
    specs = [d["spec"]["template"]["spec"] for d in found if d["kind"] in ("Deployment", "Job")]
    return [container for spec in specs for container in spec["containers"]]
