"""The /rerank forms that search engines and frameworks send, and their answers.

`texts` is the form of Text Embeddings Inference, which Elasticsearch's service `hugging_face`,
LlamaIndex and Haystack send; `documents` that of Cohere (v1 and v2) and Jina, which OpenSearch's
connectors and LangChain send. Their parsers refuse results with fields of other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from raydistill.server.limits import Refused

_LEAST, _MOST = 1e-30, 1 - 2.0**-25  # scores are float32: above lies 1.0, whose logit is infinite
_TEXT = "text"
Document = str | dict[str, Any]


class RerankRequest(BaseModel):
    """One query and its `texts` or `documents`; fields that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore")

    query: Annotated[
        str | None,
        Field(description="Needed, except for a bundle of single texts.", examples=["grey sofa"]),
    ] = None
    texts: Annotated[
        list[str] | None, Field(fail_fast=True, examples=[["Sofa, 3 seats, grey", "Sofa cover"]])
    ] = None
    documents: Annotated[
        list[Document] | None,
        Field(
            fail_fast=True,
            description="Strings, or objects with a `text` or the `rank_fields`.",
        ),
    ] = None
    top_n: Annotated[
        int | None, Field(ge=1, description="Number of results; default: all.", examples=[10])
    ] = None
    raw_scores: Annotated[
        bool | None, Field(description="Of `texts`: logits instead of 0 to 1.")
    ] = None
    return_text: Annotated[bool | None, Field(description="Of `texts`.")] = None
    return_documents: Annotated[bool | None, Field(description="Of `documents`.")] = None
    rank_fields: Annotated[
        list[str] | None, Field(description="Fields of objects that are read, in order.")
    ] = None

    def titles(self) -> list[str]:
        """The texts to be scored.

        Raises:
            Refused: neither or both forms, or an object without text.
        """
        if (self.texts is None) == (self.documents is None):
            given = "both texts and documents" if self.texts is not None else "no texts"
            raise Refused(422, given, hint="give texts (TEI) or documents (Cohere, Jina)")
        if self.texts is not None:
            return self.texts
        return [
            one if isinstance(one, str) else self._text(one, row=row)
            for row, one in enumerate(self.documents or ())
        ]

    def _text(self, document: Mapping[str, Any], *, row: int) -> str:
        names = self.rank_fields or [_TEXT]
        values = [document.get(name) for name in names]
        texts = [value for value in values if isinstance(value, str)]
        if not texts:
            wanted = " or ".join(names)
            raise Refused(
                422,
                f"documents.{row} has no string {wanted}",
                hint="give strings, objects with a text, or rank_fields",
            )
        return " ".join(texts)

    def answer(self, scores: NDArray[np.float32], *, bundle: str, api: str) -> Any:  # noqa: ANN401
        """The answer in the form of the request, the best first; equal scores in given order.

        `api`: the version of Cohere's that the client asked for.
        """
        order = np.argsort(-scores, kind="stable")[: self.top_n].tolist()
        if self.texts is not None:
            shown = _logits(scores) if self.raw_scores else scores
            texts = self.texts
            return [
                {"index": i, "score": shown[i], **({"text": texts[i]} if self.return_text else {})}
                for i in order
            ]
        return {
            "id": str(uuid4()),
            "results": [self._result(i, scores[i]) for i in order],
            "meta": {"api_version": {"version": api}, "bundle": bundle},
        }

    def _result(self, index: int, score: np.float32) -> dict[str, Any]:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if self.return_documents and self.documents is not None:
            one = self.documents[index]
            result["document"] = {_TEXT: one} if isinstance(one, str) else one
        return result


def _logits(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    inside = np.clip(scores.astype(np.float64), _LEAST, _MOST)
    return (np.log(inside) - np.log1p(-inside)).astype(np.float32)


class Rank(BaseModel):
    """A result for one of `texts`."""

    index: Annotated[int, Field(description="In the texts of the request.")]
    score: Annotated[float, Field(examples=[0.912])]
    text: str | None = None


class RankedDocument(BaseModel):
    """A result for one of `documents`."""

    index: Annotated[int, Field(description="In the documents of the request.")]
    relevance_score: Annotated[float, Field(examples=[0.912])]
    document: dict[str, Any] | None = None


class RankedDocuments(BaseModel):
    """The answer for `documents`."""

    id: str
    results: list[RankedDocument]
    meta: Annotated[dict[str, Any], Field(description="The bundle, and the version of the form.")]
