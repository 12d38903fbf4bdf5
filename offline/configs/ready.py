"""The ready configurations by name; apart, so that a wrong name is told before anything heavy is imported."""

from importlib import resources
from pathlib import Path

from services.platform.errors import InvalidConfig


def configuration_file(name: str) -> Path:
    """The file that a configuration's name stands for.

    Args:
        name: path of a YAML file, or `helpdesk` and whatever else `offline/configs` holds.

    Raises:
        InvalidConfig: there is no such file, or no ready configuration of that name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InvalidConfig(f"There is no configuration file {name}.")
        return path
    folder = Path(str(resources.files("offline.configs")))
    ready = {path.stem: path for path in folder.glob("*.yaml")}
    if name not in ready:
        raise InvalidConfig(
            f"There is no configuration {name!r}.",
            hint=f"Expected a .yaml file, or one of {', '.join(sorted(ready))}.",
        )
    return ready[name]
