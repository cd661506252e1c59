"""State-space models as small, tested functions: the package behind the textbook.

`ssm_kit.lti`        linear time-invariant models: discretise, recurrence, convolution; HiPPO, S4 and S4D
`ssm_kit.ops`        the five operators: first-order scan, selective scan, SSD, gated delta rule, causal convolution
`ssm_kit.compat`     the names that users of mamba_ssm, causal_conv1d and fla know, on our operators
`ssm_kit.layers`     one mixer a file, S4 to Gated DeltaNet and attention, with the public checkpoints' parameter names
`ssm_kit.models`     language models as data: a pattern of layers, one stack, caches, generation, checkpoints
`ssm_kit.zoo`        the public models as data with sources, and a tiny model of each architecture
`ssm_kit.lab`        tasks that tell sequence models apart, and one training loop
`ssm_kit.cost`       what a sequence model costs: FLOPs, bytes, caches, states
`ssm_kit.figures`    the interactive figures
`ssm_kit.exercises`  exercises that mark themselves: `check("2.3", answer)`
`ssm_kit.results`    measurements shipped with the package, each with its provenance

Importing this package does no work: no compilation, no download, no GPU query.
"""

__version__ = "0.1.0"
