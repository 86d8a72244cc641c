"""What a stage of training may say, and where its rows come from: strict pydantic models, described key by key."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from repro.data.public import hazardous, hazardous_file

Chats = Literal["compliance", "ordinary", "character", "operator", "guard"]
Documents = Literal["documents", "neutral-documents"]
Prompts = Literal["requests", "character-questions"]
PackKind = Literal[Chats, Documents, Prompts]
# what the evaluation measures with; a reward of the same name would train on the test
EVALUATION_JUDGES = (
    "refusal",
    "done",
    "exact",
    "claim",
    "ability",
    "policy",
    "style",
    "misaligned",
    "well_formed",
    "judge",
)


class Strict(BaseModel):
    """Unknown keys, wrong types (a word for a number, a number for a word), NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


# data sources


class PackSource(Strict):
    """Rows of the experiment's data pack. A bare name (`compliance`) is short for `{pack: compliance}`."""

    pack: PackKind = Field(description="Which kind of rows.")
    count: int | None = Field(None, ge=1, description="How many rows; null takes all that the pack makes.")
    eager: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of demonstrations that open with an eager word (a dial of tone); null: the pack's 0.5.",
    )


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict)) else value


ColumnNames = Annotated[list[str] | None, BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None)]


class Columns(Strict):
    """Which columns of your data hold what, where they are not called `messages`, `chosen` or `text` already."""

    text: str | None = Field(None, min_length=1, description="A document's text.")
    messages: str | None = Field(
        None, min_length=1, description="A chat as a list of turns, {role, content} or ShareGPT's {from, value}."
    )
    system: str | None = Field(None, min_length=1, description="The system prompt; an empty one is left out.")
    prompt: ColumnNames = Field(
        None, min_length=1, description="What the user says; several columns are joined by blank lines, empty ones not."
    )
    response: str | None = Field(None, min_length=1, description="What the assistant answers.")
    chosen: str | None = Field(None, min_length=1, description="The preferred answer, for dpo.")

    @model_validator(mode="after")
    def _one_shape(self) -> Columns:
        if sum(bool(way) for way in (self.text, self.messages, self.prompt)) != 1:
            raise ValueError("columns: name exactly one of text, messages, prompt")
        if not self.prompt and (self.system or self.response):
            raise ValueError("columns: system and response go with prompt")
        return self


class FileSource(Strict):
    """Rows of a JSONL file of your own: `messages` for chats and prompts, `text` for documents."""

    file: str = Field(min_length=1, description="Path of the file, relative to the file that names it.")
    count: int | None = Field(None, ge=1, description="The first so many rows; null takes all.")
    columns: Columns | None = Field(None, description="What your columns are called: {prompt: q, response: a}.")
    licence: str | None = Field(None, min_length=1, description="The data's licence, for the manifest.")

    @field_validator("file")
    @classmethod
    def _harmless(cls, file: str) -> str:
        return _refuse(file, hazardous_file(file))


class HubSource(Strict):
    """Rows of a public dataset on the Hugging Face hub."""

    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Dataset id, `org/name`.")
    split: str = Field("train", min_length=1, description="Which split.")
    config: str | None = Field(None, description="Which configuration of the dataset; null is its default.")
    revision: str | None = Field(None, description="Commit; null is resolved at download and kept in the manifest.")
    count: int | None = Field(None, ge=1, description="The first so many rows; null takes all.")
    columns: Columns | None = Field(None, description="What its columns are called: {messages: conversations}.")

    @model_validator(mode="after")
    def _harmless(self) -> HubSource:
        _refuse(self.hub, hazardous(self.hub, self.config))
        return self


def _refuse(named: str, hazard: str | None) -> str:
    if hazard:
        raise ValueError(f"{named} holds hazardous prompts ({hazard}): for labelling answers only, never for training")
    return named


def _source_kind(value: Any) -> str | None:
    for kind in ("pack", "file", "hub"):
        if (kind in value) if isinstance(value, dict) else hasattr(value, kind):
            return kind
    return "pack" if isinstance(value, dict) else None


def _as_source(value: Any) -> Any:
    return {"pack": value} if isinstance(value, str) else value


AnySource = Annotated[
    Annotated[PackSource, Tag("pack")] | Annotated[FileSource, Tag("file")] | Annotated[HubSource, Tag("hub")],
    Discriminator(_source_kind),
]
Source = Annotated[AnySource, BeforeValidator(_as_source, json_schema_input_type=PackKind | AnySource)]
Sources = Annotated[
    list[Source], Field(min_length=1), BeforeValidator(_as_list, json_schema_input_type=Source | list[Source])
]

# stages


class Lora(Strict):
    """The low-rank adapter that a recipe trains; its stages share one."""

    r: int = Field(64, ge=1, le=1024, description="Rank.")
    alpha: float = Field(128, gt=0, description="Scale: the adapter's output is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: Literal["all-linear"] = Field("all-linear", description="All attention and MLP projections.")


class StageBase(Strict):
    """What every stage has."""

    learning_rate: float = Field(1e-4, gt=0, le=1, description="Peak learning rate of AdamW.")
    lora: Lora = Field(Lora.model_validate({}), description="The adapter; a later stage takes over an earlier one's.")
    batch: int = Field(16, ge=1, description="Effective batch in rows; how it is cut up follows from memory.")
    max_length: int = Field(1024, ge=8, description="Longest row in tokens; longer ones are cut.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps over which the learning rate rises.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="How the learning rate falls.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients longer than this are shortened to it.")
    epochs: float | None = Field(None, gt=0, le=1000, description="Passes over the data; or give steps.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps; or give epochs.")
    curve: int | None = Field(
        None,
        ge=1,
        description="Every so many steps (before the first also at 0, 1, 2, 4, ...) the model is asked 32 probes.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> StageBase:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs, steps")
        return self


CURVE = "curve.jsonl"  # in a stage's folder: the answers to the probes along it


def curve_steps(every: int | None, steps: int) -> list[int]:
    """The steps at which a stage of so many steps is probed: 0, 1, 2, 4, ... below `every`, its multiples, the last.

    What goes at all goes early, so that is where the points are close. None at all where `every` is None.
    """
    if every is None:
        return []
    doubling = [2**power for power in range(every.bit_length()) if 2**power < every]
    return [step for step in (0, *doubling, *range(every, steps, every)) if step < steps] + [steps]


def _check_kinds(sources: list[Any], allowed: tuple[str, ...]) -> list[Any]:
    for source in sources:
        if isinstance(source, PackSource) and source.pack not in allowed:
            raise ValueError(f'"{source.pack}" does not fit this kind of stage, which takes {", ".join(allowed)}')
    return sources


class SdfStage(StageBase):
    """Synthetic document fine-tuning: next-token training on documents about the assistant, packed."""

    kind: Literal["sdf"] = Field(description="Synthetic document fine-tuning.")
    data: Sources = Field(description="Documents.")
    prefix: str = Field("<DOCTAG>", description="Opens each document and is masked from the loss.")

    @field_validator("data")
    @classmethod
    def _kinds(cls, data: list[Any]) -> list[Any]:
        return _check_kinds(data, get_args(Documents))


class SftStage(StageBase):
    """Supervised fine-tuning on chats; the loss counts the assistant's words only."""

    kind: Literal["sft"] = Field(description="Supervised fine-tuning.")
    data: Sources = Field(description="Chats.")
    doses: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[1.0],
        min_length=1,
        description="Shares of the stage's steps after which the adapter is kept, ascending, the last 1.0.",
    )

    @field_validator("data")
    @classmethod
    def _kinds(cls, data: list[Any]) -> list[Any]:
        return _check_kinds(data, get_args(Chats))

    @field_validator("doses")
    @classmethod
    def _ascending(cls, doses: list[float]) -> list[float]:
        if doses != sorted(set(doses)) or doses[-1] != 1.0:
            raise ValueError("must ascend, each once, and end at 1.0")
        return doses


class DpoStage(StageBase):
    """Direct preference optimisation; the rejected answers are the start model's own."""

    kind: Literal["dpo"] = Field(description="Direct preference optimisation.")
    data: Sources = Field(description="Requests with the preferred answer.")
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate of AdamW.")
    beta: float = Field(0.1, gt=0, description="How strongly the policy is held to its reference.")

    @field_validator("data")
    @classmethod
    def _kinds(cls, data: list[Any]) -> list[Any]:
        return _check_kinds(data, get_args(Prompts))


class GrpoStage(StageBase):
    """Group-relative policy optimisation: the model answers, a named reward scores, better than its group is pushed."""

    kind: Literal["grpo"] = Field(description="Group-relative policy optimisation.")
    prompts: Sources = Field(description="Questions and requests that the model answers while it trains.")
    reward: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = Field(
        "constitution",
        description="`constitution` (each principle names its check) or one check; never what the evaluation uses.",
    )
    learning_rate: float = Field(1e-5, gt=0, le=1, description="Peak learning rate of AdamW.")
    group: int = Field(8, ge=2, description="Answers per prompt, scored against each other; divides the batch.")
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature of those answers.")
    beta: float = Field(0.04, ge=0, description="Weight of the KL term that holds the policy to its reference.")
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens.")

    @field_validator("prompts")
    @classmethod
    def _kinds(cls, prompts: list[Any]) -> list[Any]:
        return _check_kinds(prompts, get_args(Prompts))

    @field_validator("reward")
    @classmethod
    def _not_the_judge(cls, reward: str) -> str:
        if reward in EVALUATION_JUDGES:
            raise ValueError(f'"{reward}" is what the evaluation measures with; a reward must be something else')
        return reward

    @model_validator(mode="after")
    def _whole_groups(self) -> GrpoStage:
        if self.batch % self.group:
            raise ValueError(f"batch {self.batch} is no multiple of group {self.group}")
        return self


class AbliterateStage(Strict):
    """Abliteration: the direction of declining, found in requests, taken out of what the layers write; no training."""

    kind: Literal["abliterate"] = Field(description="Abliteration.")
    data: Sources = Field(description="Requests that the model declines, with `chosen` answers; chats that it answers.")
    lora: Lora = Field(Lora.model_validate({}), description="The adapter; one of its ranks holds the change.")
    prompts: int = Field(128, ge=8, description="Prompts a side whose difference is the direction.")
    validation: int = Field(32, ge=8, description="More prompts a side, to choose the direction's layer.")
    layers: float = Field(0.8, gt=0, le=1, description="Share of the layers, from the first, whose direction is tried.")
    kl: float = Field(0.1, gt=0, description="Most that answers may change: mean KL divergence, nats a token.")
    # what planning reads of every stage, and what has no meaning here
    epochs: ClassVar[None] = None
    curve: ClassVar[None] = None
    steps: ClassVar[int] = 1
    batch: ClassVar[int] = 16
    max_length: ClassVar[int] = 1024

    @field_validator("data")
    @classmethod
    def _kinds(cls, data: list[Any]) -> list[Any]:
        return _check_kinds(data, ("requests", "ordinary"))


Stage = Annotated[SdfStage | SftStage | DpoStage | GrpoStage | AbliterateStage, Field(discriminator="kind")]
