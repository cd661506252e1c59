"""State-space models as small, tested functions: the package behind the textbook.

`ssm_kit.lti`        linear time-invariant models: discretise, run as a recurrence, run as a convolution
`ssm_kit.ops`        the five operators: first-order scan, selective scan, SSD, gated delta rule, causal convolution
`ssm_kit.compat`     the names that users of mamba_ssm, causal_conv1d and fla know, on our operators
`ssm_kit.cost`       what a sequence model costs: FLOPs, bytes, caches, states
`ssm_kit.figures`    the interactive figures
`ssm_kit.exercises`  exercises that mark themselves: `check("2.3", answer)`
`ssm_kit.results`    measurements shipped with the package, each with its provenance

Importing this package does no work: no compilation, no download, no GPU query.
"""

__version__ = "0.1.0"
