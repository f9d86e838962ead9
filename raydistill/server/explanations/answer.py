"""The JSON of an answer of /explain, for OpenAPI too: what drove the score of a pair."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

_CODE_POINTS = "Code points, not UTF-16 units or bytes."


class Word(BaseModel):
    """Characters of a text as it was typed, and the words that they are read as."""

    start: Annotated[int, Field(description=_CODE_POINTS, examples=[0])]
    end: Annotated[int, Field(examples=[3])]
    read: Annotated[list[str], Field(examples=[["18", "volt"]])]
    on_other_side: Annotated[
        bool, Field(description="One of the words stands in the other text, letter for letter.")
    ]
    logit: Annotated[
        float,
        Field(description="Of its n-grams; one of two words is split evenly.", examples=[0.21]),
    ]


class ReadText(BaseModel):
    """A text as it was typed, and how it is read."""

    text: str
    words: list[Word]
    num_read: Annotated[int, Field(description="The rest of the text is not read: too long.")]


class FeatureValue(BaseModel):
    """One match feature of a part."""

    name: Annotated[str, Field(description="In docs/features.md.", examples=["query_found_mean"])]
    text: Annotated[str, Field(examples=["query words in the title: mean"])]
    logit: float
    value: Annotated[float | None, Field(description="For this pair.")] = None
    average: Annotated[float | None, Field(description="Over the training pairs.")] = None


class Part(BaseModel):
    """A part of the logit.

    Match features that say nearly the same are one part; `features` has each of them. `value` and
    `average` are then those of the feature that says most of it.
    """

    name: Annotated[str, Field(examples=["grey sofa", "query words in the title"])]
    kind: Annotated[str, Field(examples=["n-gram of the query", "match feature"])]
    logit: Annotated[float, Field(examples=[0.42])]
    note: Annotated[str, Field(description="What limits its meaning, or empty.")] = ""
    spans: Annotated[
        list[tuple[int, int]],
        Field(description=f"Where an n-gram stands in its text. {_CODE_POINTS}"),
    ] = []
    value: float | None = None
    average: float | None = None
    features: list[FeatureValue] = []


class Explained(BaseModel):
    """What drove the score of one pair.

    `base` + the sum of the parts' logits = `total`. Without int8 layers `total` = `logit`; with
    them the scorer also rounds its inputs, and the two differ a little.
    score = sigmoid(temperature * logit).
    """

    score: Annotated[float, Field(examples=[0.64])]
    relevant: Annotated[bool, Field(description="The score reaches the threshold.")]
    threshold: Annotated[float, Field(examples=[0.7092])]
    temperature: float
    logit: Annotated[float, Field(examples=[0.576])]
    total: Annotated[float, Field(description="The logit of the floating-point network.")]
    base: Annotated[
        float, Field(description="The logit without n-grams, with all features at their averages.")
    ]
    method: Annotated[str, Field(examples=["integrated gradients"])]
    bundle: Annotated[str, Field(examples=["0e40b7e9120f9fa4"])]
    query: ReadText
    title: ReadText
    parts: Annotated[list[Part], Field(description="The largest first.")]
