"""The order in which the gallery shows its examples."""

from pathlib import Path

ORDER = [
    "plot_quickstart",
    # tutorials
    "plot_messy_table",
    "plot_wrong_digits",
    "plot_review",
    "plot_text",
    "plot_tokens",
    "plot_cnn",
    "plot_image_folder",
    "plot_backbone",
    "plot_annotators",
    "plot_checked_labels",
    "plot_grid_search",
    "plot_halving_search",
    # background
    "plot_matrix_recovery",
    "plot_starts",
    "plot_s_against_c",
    "plot_direct_against_em",
]


def reading_order(filename: str) -> tuple[int, str]:
    """Sort the examples as listed above, and any others after them by name.

    >>> sorted(["plot_cnn.py", "plot_zebra.py", "plot_text.py"], key=reading_order)
    ['plot_text.py', 'plot_cnn.py', 'plot_zebra.py']
    """
    name = Path(filename).stem
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)
