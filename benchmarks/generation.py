"""Writing and labelling against the bare loops that anybody would write, as ratios of one run.

    python benchmarks/generation.py
    python benchmarks/generation.py --rounds 5 --json generation.json

Both sides run the same model on the same machine in this process, in turn, round after round, and the median of the
rounds' ratios counts; 0.8 is the goal.

- *writing*: samples behind soft prompts, as texts, against transformers' own `model.generate` behind the same prompts,
  as texts: the same batch, temperature and longest sample. The ratio is of tokens a second, since draws and
  lengths differ.
- *labelling*: embeddings and soft labels of helpdesk's unlabelled texts against a loop over the tokenizer, the
  encoder and the mean of its last layer, in file order. The ratio is of texts a second.

`--clock processor` counts the seconds that this process computed instead of those that passed: on a machine that others
use, with OMP_NUM_THREADS=1 and on a processor only.

Without `--model`, the miniature writes as it is before its training: MiniLM's weights as a decoder.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

import offline.tasks
from offline.teacher.encoder import EncoderConfig, load_encoder
from offline.teacher.framing import AFTER_NAME
from offline.teacher.generator import (
    SHARED_TOKENS,
    Generator,
    GeneratorConfig,
    describe_generator,
    load_generator,
)
from offline.teacher.head import HeadScorer, SoftmaxHead
from offline.teacher.pretrained import PACKAGED, model_directory
from offline.teacher.sampling import SamplingConfig
from offline.teacher.soft_labels import Labeller
from offline.teacher.soft_prompt import name_prompt
from offline.teacher.warm_start import warm_start
from offline.teacher.writing import balanced_labels, write

NAMES = ["password reset", "printer problem", "vpn connection", "phishing report"]
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Side = Callable[[int], float]
"""Runs one side of a round, by its number; gives the units of work that were done."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", help="a causal language model that writes: a directory or hub name"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=256, help="of a round, written as one batch")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--texts", type=int, default=512, help="labelled in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generator = open_generator(Path(folder), given)
        measured = {
            "writing": compare(*writing(generator, given.samples), given),
            "labelling": compare(*labelling(texts(given.texts), given.device), given),
        }
    for name, figures in measured.items():
        print(
            f"{name:<10} ratio {figures['ratio']:.2f}"
            f"  (ours {figures['ours']:,.0f}/s, bare {figures['bare']:,.0f}/s)"
        )
    if given.json:
        given.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def compare(ours: Side, bare: Side, given: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds; both sides run once before the first."""
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    now = CLOCKS[given.clock]
    for number in range(given.rounds + 1):
        # Whoever is second finds the caches warm: they take turns.
        order = [("ours", ours), ("bare", bare)][:: 1 if number % 2 else -1]
        for name, side in order:
            start = now()
            work = side(number)
            if number:
                rates[name].append(work / (now() - start))
    ratios = [own / other for own, other in zip(rates["ours"], rates["bare"], strict=True)]
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {"ratio": statistics.median(ratios), "ratios": ratios, **medians}


def open_generator(folder: Path, given: argparse.Namespace) -> Generator:
    """The model that is named, or the miniature before its training, as a stage leaves it."""
    config = GeneratorConfig(
        model=given.model, device=given.device, max_tokens=given.max_tokens, precision="float32"
    )
    if config.model is None:
        model, tokenizer = warm_start(
            [*texts(2000), *NAMES, AFTER_NAME],
            encoder=config.encoder,
            tokens=config.vocabulary,
            layers=config.layers,
            positions=config.max_tokens + 32,
            dropout=0.0,
            seed=0,
        )
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
    described = describe_generator(config, pair=False, names=NAMES, directory=folder)
    (folder / "generator.json").write_text(json.dumps(described))
    return load_generator(folder)


def writing(generator: Generator, samples: int) -> tuple[Side, Side]:
    label_tokens = generator.name_width - SHARED_TOKENS
    prompts = name_prompt(generator, NAMES, SHARED_TOKENS, label_tokens).fixed()
    labels = balanced_labels(samples, len(NAMES))
    framing, model = generator.framing, generator.model.model

    def ours(seed: int) -> float:
        source = torch.Generator().manual_seed(seed)
        written = write(generator, prompts, labels, SamplingConfig(), source)
        return float(written.sampled.lengths.sum())

    @torch.inference_mode()
    def bare(seed: int) -> float:
        torch.manual_seed(seed)
        embeddings = prompts[torch.from_numpy(labels)].to(generator.model.dtype)
        ids = model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], device=embeddings.device),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=generator.max_tokens,
            eos_token_id=framing.end,
            pad_token_id=framing.end,
        )
        framing.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ended = (ids == framing.end).int()
        lengths = torch.where(ended.any(1), ended.argmax(1) + 1, ids.shape[1])
        return float(lengths.sum())

    return ours, bare


def labelling(read: list[str], device: str) -> tuple[Side, Side]:
    config = EncoderConfig(device=device)
    encoder = load_encoder(config)
    random = np.random.default_rng(0)
    weight = random.normal(size=(len(NAMES), encoder.dimensions)).astype(np.float32)
    head = SoftmaxHead(weight, np.zeros(len(NAMES), dtype=np.float32), 1.0)
    labeller = Labeller(tuple(NAMES), "benchmark", encoder, HeadScorer(head))
    directory = model_directory(PACKAGED)
    model = AutoModel.from_pretrained(directory).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)

    def ours(seed: int) -> float:
        embeddings = labeller.embed(read)
        labeller.soft_labels(read, embeddings=embeddings)
        return float(len(read))

    @torch.inference_mode()
    def bare(seed: int) -> float:
        for first in range(0, len(read), config.batch_size):
            batch = tokenizer(
                read[first : first + config.batch_size],
                padding=True,
                truncation=True,
                max_length=config.max_tokens,
                return_tensors="pt",
            ).to(device)
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            ((hidden * mask).sum(1) / mask.sum(1)).cpu().numpy()
        return float(len(read))

    return ours, bare


def texts(count: int) -> list[str]:
    """Unlabelled texts of helpdesk, over again if there are too few."""
    path = Path(offline.tasks.__file__).parent / "helpdesk" / "unlabelled.jsonl"
    found = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    return (found * (count // len(found) + 1))[:count]


if __name__ == "__main__":
    main()
