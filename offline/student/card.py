"""The model card of a bundle, written from the trainer's own state."""

from pathlib import Path
from typing import Any

from services.student.bundle import MODEL_CARD, BundleManifest
from services.student.mixing import FEATURES


def write_model_card(directory: Path, manifest: BundleManifest) -> None:
    """Write `README.md` from what the manifest says."""
    (directory / MODEL_CARD).write_text(model_card(manifest), encoding="utf-8")


def model_card(manifest: BundleManifest) -> str:
    """Markdown: what the student is, what it learned from, how it mixes, what it is not for."""
    trained: dict[str, Any] = manifest.trained_with
    share = manifest.parameters / trained["labeller_parameters"]
    inputs = "pairs of texts" if manifest.pair else "single texts"
    fitted = trained["mixing_fitted_on"]
    source = (
        f"Fitted on {fitted:,} validation rows. Cross-validated there:"
        if fitted
        else "Made of settings: the task has too few validation rows to fit it on."
    )
    lines = [
        f"# Student `{trained['system']}` for the task `{manifest.task}`",
        "",
        trained["summary"],
        "",
        "| | |",
        "| --- | --- |",
        f"| input | {inputs}, at most {manifest.max_tokens} tokens |",
        f"| labels | {len(manifest.labels)} |",
        f"| parameters | {manifest.parameters:,} ({share:.1%} of the labeller's) |",
        f"| query vector | {manifest.dimensions} dimensions, unit length |",
        f"| labeller | {trained['labeller']} ({trained['labeller_parameters']:,} parameters) |",
        *_encoder(trained),
        f"| trained on | {trained['items']:,} items, seed {trained['seed']} |",
        f"| store | {trained['store_items']:,} items |",
        f"| encoder | `{manifest.encoder_fingerprint}` |",
        f"| precision | {_precision(trained)} |",
        "",
        "## Training",
        "",
        *_settings(trained["training"]),
        *(_settings(trained["retrieval"]) if trained["retrieval"] else []),
        "",
        "Mean losses of the last steps: "
        + ", ".join(f"{name} {value}" for name, value in trained["last_losses"].items())
        + ".",
        "",
        "## Mixing",
        "",
        f"Gate: {trained['gate']}. {source}",
        "",
        *_settings(trained["mixing_figures"]),
        "",
        f"k = {manifest.mixing.k}, similarity temperature "
        f"{manifest.mixing.similarity_temperature}, head temperature "
        f"{manifest.mixing.head_temperature}, gate bias {manifest.mixing.gate_bias}.",
        "",
        *_lexical(manifest),
        *_distance(manifest),
        "| the gate reads | weight |",
        "| --- | --- |",
        *(
            f"| {name} | {weight} |"
            for name, weight in zip(FEATURES, manifest.mixing.gate_weights, strict=True)
        ),
        "",
        "## Limits",
        "",
        "The student knows the labels above and the language of its training texts; a text of another "
        "kind still gets the label that fits least badly. Its soft labels come from the labeller, "
        "errors and preferences included. Accuracy on the test split is in the release's manifest and "
        "in the run's report.",
        "",
        "## Labels",
        "",
        *(
            f"- `{label}`: {name}"
            for label, name in zip(manifest.labels, manifest.label_names, strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def _encoder(trained: dict[str, Any]) -> list[str]:
    start = trained.get("encoder")
    if start is None:
        return []
    layers, of_layers = start["layers"], start["of_layers"]
    kept = f", the first {layers} of its {of_layers} layers" if layers != of_layers else ""
    return [f"| began from | {start['model']}{kept}; its learning rate {start['learning_rate']} |"]


def _precision(trained: dict[str, Any]) -> str:
    rounding = trained["int8_beside_fp32"]
    if rounding is None:
        return "fp32"
    return (
        f"int8; beside fp32, on {rounding['texts']:,} of its items, the same label for {rounding['same_label']:.1%}, "
        f"scores within {rounding['logits']:.2g}, cosines of query vectors above {rounding['cosine']:.4f}"
    )


def _lexical(manifest: BundleManifest) -> list[str]:
    share = manifest.mixing.lexical_share
    if not share:
        return []
    return [
        f"Before they are mixed, the head's scores are blended with those of the release's lexical "
        f"index, whose share is {share}: the head temperature and the figures above are of the two together.",
        "",
    ]


def _distance(manifest: BundleManifest) -> list[str]:
    if manifest.distance_threshold is None:
        return []
    return [
        f"A text whose neighbours are further than {manifest.distance_threshold} (one minus their mean "
        "similarity) counts as unlike the task's: 95 of 100 texts that it was fitted on are nearer.",
        "",
    ]


def _settings(values: dict[str, Any]) -> list[str]:
    return [f"- {name}: {value}" for name, value in values.items()]
