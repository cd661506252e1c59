"""Execute the chapters and keep them reproducible: `python -m tools.notebooks` (or `make notebooks`)."""
