"""Gradient checkpointing of a frozen model: layers are computed again for the gradient instead of kept."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from services.platform.errors import InvalidConfig


@contextmanager
def checkpointed_layers(model: PreTrainedModel) -> Iterator[None]:
    """Within it, what the model computes keeps the inputs of its layers alone (Chen et al. 2016).

    Transformers recomputes only layers in training mode, in which they would drop values out too. So the
    layers' own mark is set, not their parts', and their own rates of dropout are zero meanwhile. All
    is as before afterwards; the gradient may be taken later.

    Raises:
        InvalidConfig: the model cannot do it.
    """
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not model.supports_gradient_checkpointing or not layers:
        raise InvalidConfig(
            f"A model of the type {model.config.model_type!r} has no gradient checkpointing.",
            hint="Set soft_prompt.gradient_checkpointing and ppo.gradient_checkpointing to false.",
        )
    rates = [
        (layer, name, value)
        for layer in layers
        for name, value in vars(layer).items()
        if "drop" in name and isinstance(value, float)
    ]
    model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        for layer, name, _ in rates:
            setattr(layer, name, 0.0)
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer, name, value in rates:
            setattr(layer, name, value)
        for layer in layers:
            layer.training = False
        model.activation_checkpointing_disable()  # type: ignore[no-untyped-call]
