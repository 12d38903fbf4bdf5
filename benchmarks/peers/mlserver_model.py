"""MLServer round the predictor, its adaptive batching on; `mlserver start` finds it by the settings beside it."""

import json
import os
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from same_predictor import TASK_DIR, answers, open_predictor


class Student(MLModel):
    async def load(self) -> bool:
        self.predictor = open_predictor(Path(os.environ[TASK_DIR]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        written = [json.dumps(answer) for answer in answers(self.predictor, texts)]
        outputs = [StringCodec.encode_output("answers", written)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
