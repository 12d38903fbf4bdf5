"""The words of a label that nobody described."""


def label_words(label: str) -> str:
    """As `TaskConfig` words labels that are given as a list."""
    return label.replace("_", " ").replace("-", " ").strip()
