"""Options of the peers that this package does not have: refused by name, never ignored."""


def refuse(**options: object) -> None:
    """Raise NotImplementedError for the first option that was given (is neither None nor False)."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise NotImplementedError(f"{name} is not supported by ssm_kit.compat: leave it out; got {value!r}")
