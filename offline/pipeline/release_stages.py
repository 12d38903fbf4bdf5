"""The stages that make a release, in order, and what each reads."""

from offline.pipeline.stage import Stage


def _stage(name: str, *inputs: str, section: str | None = None) -> Stage:
    return Stage(name, f"offline.stages.{name}", inputs, section or name)


STAGES = (
    _stage("prepare", section="task"),
    _stage("labeller", "prepare"),
    _stage("generator", "prepare"),
    _stage("soft_prompt", "prepare", "generator"),
    _stage("ppo", "prepare", "labeller", "generator", "soft_prompt"),
    _stage("generate", "prepare", "generator", "ppo"),
    _stage("knowledge", "prepare", "labeller", "generate"),
    _stage("student", "prepare", "labeller", "knowledge"),
    _stage("baselines", "prepare", "labeller", "knowledge"),
    _stage("index", "knowledge", "student", section="store"),
    _stage("evaluate", "prepare", "labeller", "baselines", "index"),
)

BESIDE = frozenset({"student", "baselines"})
"""Stages that run beside each other: one student trains no faster on a second core."""
