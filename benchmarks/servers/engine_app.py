"""The engine behind a FastAPI route as one writes it at first: validated, searched, answered, and nothing else.

SHARD names the engine's files, which become this process's own; EF_SEARCH is how many candidates a search looks at.
"""

import os

import qdrant_edge as edge
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
shard = edge.EdgeShard.load(os.environ["SHARD"])
params = edge.SearchParams(hnsw_ef=int(os.environ["EF_SEARCH"]))


class Search(BaseModel):
    vectors: list[list[float]]
    k: int


class Found(BaseModel):
    ids: list[list[int]]
    scores: list[list[float]]


@app.post("/search")
async def search(asked: Search) -> Found:
    requests = [
        edge.QueryRequest(asked.k, query=edge.Query.Nearest(row), params=params)
        for row in asked.vectors
    ]
    answers = shard.query_batch(edge.QueryBatchRequest(requests))
    return Found(
        ids=[[point.id for point in answer] for answer in answers],
        scores=[[point.score for point in answer] for answer in answers],
    )


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {}
