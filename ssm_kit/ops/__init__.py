"""The operators of the book: sequence models as functions on torch tensors, time before channels.

Every operator has a sequential definition (`backend="reference"`), a chunked form that needs no compiler and no GPU
(`backend="torch"`), and a step for decoding that takes the state and returns the next one.

The main tensors are positional, everything else is keyword-only. Half precision is computed in float32 and returned
in its own dtype; states are then float32. Gradients reach every floating argument, also through the final state.
"""

__all__: list[str] = []
