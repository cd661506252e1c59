"""The light theme's colours, for plots and for the still pictures of figures.

The live figures have both themes in `figures/src/shared/theme.css`; tests compare it and `book.mplstyle` with this.
"""

INK, QUIET, RULE = "#1b1f24", "#57606a", "#d5d9de"
STATE, INPUT, ATTENTION = "#0072b2", "#7a5d00", "#c24e00"
WARNING = "#8f0043"  # unstable, wrong, cut short: never the colour of a quantity
ZOH, BILINEAR, EULER, MAMBA = "#0072b2", "#007f5f", "#4b2e9e", "#a8518a"
