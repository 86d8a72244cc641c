"""The arms of a run as models to ask: which of them are there, each one's adapter and system prompt, and their base."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from repro import doctor, recipes, store
from repro.errors import BadInput
from repro.keys import base_fingerprint, local_folder
from repro.plan import START, plain_name
from repro.runfolder import document
from repro.schema import ModelSpec
from repro.yamltree import did_you_mean


@dataclass(frozen=True)
class Ready:
    """An arm that can be asked: its adapter (None: the bare base) and the system prompt that it always has."""

    name: str
    adapter: Path | None
    system: str | None

    def told(self, system: str | None) -> str | None:
        """Its own system prompt with another one after it; None where there is neither."""
        return "\n\n".join(text for text in (self.system, system) if text) or None

    def put_on(self, model: Any) -> None:
        """Makes the base this arm."""
        if self.adapter is None:
            model.drop_adapter()
        else:
            model.load_adapter(self.adapter)


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not, by its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment, as the manifest has it."""
        return dict(self.manifest["experiment"])

    @property
    def arms(self) -> list[str]:
        """The names of its arms, in the experiment's order."""
        return list(self.manifest["arms"])

    @property
    def seeds(self) -> list[int]:
        """The seeds that were asked for."""
        return list(self.manifest["seeds"])

    @cached_property
    def _adapters(self) -> dict[str, dict[str, str]]:
        """Of a finished run: the folders of its arms' last adapters."""
        try:
            results = json.loads((self.path / "results.json").read_text(encoding="utf-8"))
            return dict(results["run"].get("adapters", {}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def ready(self, seed: int) -> tuple[dict[str, Ready], dict[str, str]]:
        """The arms of a seed that can be asked, and for each of the others why not. BadInput for an unknown seed."""
        if seed not in self.seeds:
            raise BadInput(f"{self.path}: there is no seed {seed}, only {', '.join(map(str, self.seeds))}")
        there: dict[str, Ready] = {}
        lacking: dict[str, str] = {}
        for arm in self.arms:
            member = self.experiment["arms"][arm]
            shared = (self.experiment.get("start") or {}).get("stages", [])
            own = (member["recipe"] or {}).get("stages", [])
            adapter = self._last(arm, seed, shared, own) if shared or own else None
            why = "is not trained yet" if adapter is None else _fault(adapter)
            if (shared or own) and why:
                lacking[arm] = why
            else:
                there[arm] = Ready(arm, adapter, member["system"])
        return there, lacking

    def _last(self, arm: str, seed: int, shared: list[Any], own: list[Any]) -> Path | None:
        """The folder of an arm's last stage: the one that the results name, else the latest finished one."""
        if named := self._adapters.get(arm, {}).get(str(seed)):
            return self.path / named
        where = plain_name(arm) if own else START
        name = f"{len(shared) + len(own) - 1}-{(own or shared)[-1]['kind']}-????????"
        done = [(store.read_done(folder), folder) for folder in self.path.glob(f"arms/{where}/seed-{seed}/{name}")]
        finished = [(about.get("finished", ""), folder) for about, folder in done if about]
        return max(finished, default=(None, None))[1]

    def choose(self, text: str | None, seed: int) -> tuple[list[Ready], list[str]]:
        """The arms that `text` names (a,b; None: all) as far as they are there, and a line on each that is not.

        BadInput for an arm that the run has not, and where none of them can be asked.
        """
        there, lacking = self.ready(seed)
        names = self.arms if text is None else [word.strip() for word in text.split(",") if word.strip()]
        unknown = [f'there is no arm "{name}", only {", ".join(self.arms)}{did_you_mean(name, self.arms)}'
                   for name in names if name not in self.arms]  # fmt: skip
        if unknown:
            raise BadInput([f"{self.path}: {line}" for line in unknown])
        found = [there[name] for name in dict.fromkeys(names) if name in there]
        lines = [f"{name} {lacking[name]}: the command that began the run goes on with it"
                 for name in names if name in lacking]  # fmt: skip
        if not found:
            raise BadInput([f"{self.path}: {line}" for line in lines] or f"{self.path}: name at least one arm")
        return found, lines

    def load_model(self, device: str = "auto") -> Any:
        """The base that the run used, 4 bits or not; nothing is looked up where its weights are on this disk.

        Raises BadInput where they are others than the run's, CannotHere where they can't be had.
        """
        spec = ModelSpec.model_validate(self.manifest["model"])
        if Path(spec.path_or_hub).is_absolute() and local_folder(spec) is None:  # made on another machine
            spec = recipes.resolve_model(spec.id)
        if local_folder(spec) is not None:
            doctor.go_offline()
            if base_fingerprint(spec) != self.manifest["base"]:
                raise BadInput(f"{self.path}: its adapters were trained on another {spec.id} than {spec.path_or_hub}")
        else:
            spec = spec.model_copy(update={"revision": self.manifest["base"].rpartition("@")[2] or spec.revision})
        from repro import models

        return models.load(spec, quant=self.experiment["quant"], device=device, backend="hf")


def open_run(path: Path) -> Run:
    """The run in a folder. BadInput where there is none, it is of a newer version, or none of its models is ours."""
    manifest = document(path / "manifest.json", "the run's resolved recipe") or {}
    try:
        known = all(arm in manifest["experiment"]["arms"] for arm in manifest["arms"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path / 'manifest.json'}: is not there, or not the manifest of a run: {error}") from None
    if not known or str(manifest["model"].get("path_or_hub", "")).startswith("openai:"):
        raise BadInput(f"{path}: holds answers of existing models, and no arms that were made here")
    return Run(path, manifest)


def _fault(folder: Path) -> str | None:
    done = store.read_done(folder)
    why = store.why_not_done(folder, done["key"]) if done else "is not finished"
    return f"can't be used: {why}" if why else None
