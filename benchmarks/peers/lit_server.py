"""LitServe round the predictor, its dynamic batching on."""

import os
from pathlib import Path
from typing import Any

import litserve
from same_predictor import MAX_BATCH, PORT, TASK_DIR, answers, open_predictor


class Student(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.predictor = open_predictor(Path(os.environ[TASK_DIR]))

    def decode_request(self, request: dict[str, Any]) -> str:
        return str(request["inputs"])

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, texts: list[str]) -> list[Any]:
        return answers(self.predictor, texts)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    # Without a time limit it takes what waits, as ours does; with one of 1 to 20 ms it was slower, and so it was with
    # its queue of ZeroMQ.
    student = Student(max_batch_size=MAX_BATCH, batch_timeout=0)
    server = litserve.LitServer(student, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(os.environ[PORT]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )
