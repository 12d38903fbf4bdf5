"""The least that FastAPI and uvicorn cost: a route that sends bodies back."""

from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/predict")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {}
