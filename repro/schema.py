"""What experiments, recipes and model presets may say: strict pydantic models, whose descriptions are the reference."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticKnownError

from repro import evals
from repro.constitution import Constitution
from repro.stages import Stage, Strict

ArmName = Literal[
    "base",
    "control",
    "naive",
    "character",
    "prompted",
    "naive-dpo",
    "character-no-sdf",
    "character-no-rl",
    "character-operator",
    "naive-operator",
    "neutral-sdf",
    "abliterated",
]


def _known_axis(name: str) -> str:
    if name not in evals.AXES:
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, evals.AXES))})
    return name


# checked when a file is read, so that an axis of one's own (evals.add) can be named too
Axis = Annotated[str, AfterValidator(_known_axis), WithJsonSchema({"type": "string", "enum": list(evals.AXES)})]
Prompting = Literal["none", "helpful-only", "careful", "constitution"]
Quant = Literal["nf4", "none"]
Pack = Literal["micro", "english"]
ARM_NAMES = get_args(ArmName)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]


# recipes and experiments


class Ingredient(Strict):
    """One line of the fidelity table: what the paper says, what the kit does, and why."""

    what: str = Field(description="The ingredient.")
    paper: str = Field(description="The paper's value, with its tag: P, 2nd, R or U (unknown).")
    kit: str = Field(description="What the kit does.")
    why: str = Field(description="Why.")
    source: str = Field(description="Where the kit's value comes from.")


class Paper(Strict):
    """Which part of the paper a recipe stands for, and how much is known of it."""

    claim: str = Field(description="The paper's claim that the recipe bears on.")
    source: str = Field(description="Where the paper says so.")
    known: str = Field(description="What is known of how the paper did it; what is not is said as such.")
    ingredients: list[Ingredient] = Field([], exclude=True, description="Lines of docs/fidelity.md.")


_PATH = WithJsonSchema({"type": "string"})
_NAME = WithJsonSchema({"type": "string", "minLength": 1})
_CHANGES = WithJsonSchema({"type": "object", "additionalProperties": {"type": ["object", "null"]}})


def _may_extend(schema: dict[str, Any]) -> None:
    """In the JSON Schema: a file that extends another needs no key but its name, and may change stages by name."""
    schema["anyOf"] = [{"required": ["extends"]}, {"required": schema["required"]}]
    schema["required"] = ["name"]
    if "stages" in schema["properties"]:
        stages = schema["properties"]["stages"]
        changes = {"type": "object", "additionalProperties": {"type": ["object", "null"]}}
        listed = {key: stages.pop(key) for key in ("type", "items", "minItems")}
        stages["anyOf"] = [listed, changes]


class Recipe(Strict):
    """How one arm is trained: stages, in order, on one adapter."""

    model_config = ConfigDict(json_schema_extra=_may_extend)
    schema_: int = Field(alias="schema", ge=1, le=1, description="Version of this format: 1.")
    name: Name = Field(description="Its name; not inherited.")
    description: str = Field("", description="One line on what it is for.")
    extends: str | None = Field(None, exclude=True, description="Name or path of a recipe that this one changes.")
    paper: Paper | None = Field(None, description="Its place in the paper.")
    constitution: Annotated[Constitution, _PATH] | None = Field(
        None,
        description="Markdown file with the character, relative to this file or to the recipes folder.",
    )
    stages: list[Stage] = Field(
        min_length=1,
        description="In order. Where the recipe extends another, a mapping by stage name changes those.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if any(stage.lora != self.stages[0].lora for stage in self.stages):
            raise ValueError("the stages of a recipe train one adapter: their lora must be the same")
        for stage in self.stages:
            if stage.kind == "grpo" and stage.reward == "constitution" and self.constitution is None:
                raise ValueError("the reward constitution needs the key constitution")
        return self


class Arm(Strict):
    """One model under comparison: trained by a recipe, told something by a system prompt, both, or (base) neither."""

    recipe: Annotated[Recipe, _NAME] | None = Field(None, description="Name or path of the recipe that trains it.")
    system: str | None = Field(
        None,
        min_length=1,
        description="System prompt: `constitution`, a .md or .txt file (a constitution's own prompt), or the text.",
    )
    stages: Annotated[None, _CHANGES] = Field(
        None,
        exclude=True,
        description="Changes to the recipe's stages by name, e.g. {sft: {learning_rate: 1e-4}}.",
    )


class Evaluation(Strict):
    """What every arm is asked."""

    axes: list[Axis] = Field(default=list(evals.AXES), min_length=1, description="Which axes.")
    samples: int = Field(10, ge=1, le=1000, description="Sampled answers per open question; all else is greedy.")
    items: int | None = Field(None, ge=1, description="At most so many items a metric; null asks all.")
    prompting: list[Prompting] = Field(
        default=["none"],
        min_length=1,
        description="Prompting strategies, each a second run of the whole suite.",
    )
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens.")

    @field_validator("axes", "prompting")
    @classmethod
    def _once(cls, values: list[str]) -> list[str]:
        if len(set(values)) != len(values):
            raise ValueError("names something twice")
        return values


class Experiment(Strict):
    """A model, arms and seeds, and what they are asked."""

    model_config = ConfigDict(json_schema_extra=_may_extend)
    schema_: int = Field(alias="schema", ge=1, le=1, description="Version of this format: 1.")
    name: Name = Field(description="Its name; not inherited.")
    description: str = Field("", description="One line on what it is for.")
    extends: str | None = Field(None, exclude=True, description="Name or path of an experiment that this one changes.")
    model: str = Field(min_length=1, description="Preset, local folder, hub id `org/name`, or auto (by memory).")
    pack: Pack = Field(description="Data pack: micro (the fictional world) or english.")
    quant: Quant = Field("nf4", description="How the base is held: nf4 (4 bits) or none.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        min_length=1,
        max_length=1000,
        description="Each trains and evaluates every arm once; three or more make claims testable.",
    )
    start: Annotated[Recipe, _NAME] | None = Field(
        None,
        description="Recipe trained once per seed, where all arms (base too) start; null: the model itself.",
    )
    arms: dict[ArmName, Arm] = Field(description="What is compared; base is among them.")
    evaluation: Evaluation = Field(Evaluation.model_validate({}), description="What every arm is asked.")
    paper: Paper | None = Field(None, exclude=True, description="Its place in the paper.")
    claims: str | None = Field(None, description="File of pre-registered claims; null tests none.")
    needs: Literal["cuda"] | None = Field(None, description="What the machine must have.")
    fallback: str | None = Field(None, description="Experiment to run instead where the machine lacks it.")
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("must differ from each other")
        return seeds

    @field_validator("arms")
    @classmethod
    def _arms_are_sound(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if "base" not in arms:
            raise ValueError("the arm base is missing: everything is compared with it")
        for name, arm in arms.items():
            bare = arm.recipe is None and arm.system is None
            if name == "base" and not bare:
                raise ValueError("the arm base has neither recipe nor system")
            if name != "base" and bare:
                raise ValueError(f'the arm "{name}" has neither recipe nor system')
        return arms

    @model_validator(mode="after")
    def _one_adapter(self) -> Experiment:
        if self.start is not None:
            for name, arm in self.arms.items():
                if arm.recipe is not None and arm.recipe.stages[0].lora != self.start.stages[0].lora:
                    raise ValueError(f'the arm "{name}" goes on training the start\'s adapter: lora must be the same')
        return self


class ModelSpec(Strict):
    """A base model: where it is, what it costs to fetch, how it takes a system prompt."""

    schema_: int = Field(1, alias="schema", ge=1, le=1, description="Version of this format: 1.")
    id: str = Field(min_length=1, description="Name of the preset; for others the hub id or folder itself.")
    path_or_hub: str = Field(min_length=1, description="Hub id `org/name`, a folder, or `micro`: the shipped organism.")
    revision: str | None = Field(None, description="Commit; null is resolved at download and kept in the manifest.")
    pack: Pack | None = Field(None, description="The only data pack the model understands; null: any.")
    targets: Literal["all-linear"] = Field("all-linear", description="Which layers carry adapters.")
    system: Literal["native", "merge"] = Field(
        "native",
        description="Has a system turn of its own, or the prompt is put before the first user turn.",
    )
    licence: str | None = Field(None, description="Licence of the weights.")
    gated: bool = Field(False, description="Needs an accepted licence and a hub token.")
    parameters: int | None = Field(None, ge=1, description="Number of weights.")
    layers: int | None = Field(None, ge=1, description="Number of layers.")
    hidden: int | None = Field(None, ge=1, description="Width of the residual stream.")
    intermediate: int | None = Field(None, ge=1, description="Width of the MLP.")
    query: int | None = Field(None, ge=1, description="Width of all query heads together.")
    key_value: int | None = Field(None, ge=1, description="Width of all key heads together.")
    vocabulary: int | None = Field(None, ge=1, description="Number of token embeddings.")
    tied: bool = Field(True, description="Whether the output layer is the embeddings.")
    context: int | None = Field(None, ge=1, description="Longest context in tokens.")
    download_gib: float | None = Field(None, ge=0, description="Size of the 16-bit weights, GiB.")
    mirror_4bit: str | None = Field(None, description="Hub id of an ungated copy in 4 bits, used on CUDA.")
    mirror_4bit_gib: float | None = Field(None, ge=0, description="Its size, GiB.")
    notes: str | None = Field(None, description="What else to know before choosing it.")
