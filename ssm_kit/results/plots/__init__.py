"""Plots of stored results, for notebooks and README alike: each takes what `load` returns and gives a figure.

    from ssm_kit import results
    from ssm_kit.results import plots
    plots.hippo_memory(results.load("hippo_memory"))

Lines are means over seeds, bands go from the lowest to the highest seed.
"""

from ssm_kit.results.plots.language import byte_language_model, length_generalisation
from ssm_kit.results.plots.scans import hippo_memory, scan_precision
from ssm_kit.results.plots.serving import decoding
from ssm_kit.results.plots.studies import hybrid_fraction, induction_heads, recall_capacity, selective_copying

__all__ = [
    "byte_language_model",
    "decoding",
    "hippo_memory",
    "hybrid_fraction",
    "induction_heads",
    "length_generalisation",
    "recall_capacity",
    "scan_precision",
    "selective_copying",
]
