"""The theme's light colours, for the still pictures (src/shared/theme.css holds both themes)."""

INK, QUIET, RULE = "#1b1f24", "#57606a", "#d5d9de"
STATE, INPUT, ATTENTION = "#0072b2", "#7a5d00", "#c24e00"
ZOH, BILINEAR, EULER, MAMBA = "#0072b2", "#007f5f", "#c24e00", "#a8518a"
