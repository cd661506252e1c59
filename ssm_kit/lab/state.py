"""All that training changes, as named tensors: parameters, buffers, the optimizer's moments, random numbers.

Names and whole tensors, whatever the sharding: a checkpoint of eight processes loads on one.
"""

import torch
from torch import Tensor, nn

from ssm_kit.lab import parallel


def capture(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies on the CPU; every process must ask, since shards are gathered."""
    tensors = {f"model.{name}": tensor for name, tensor in _model_tensors(model).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    whole = {name: parallel.whole(tensor.detach()).cpu().contiguous().clone() for name, tensor in tensors.items()}
    return whole | {f"random.{kind}": parallel.gathered(value).cpu() for kind, value in _random_states(model).items()}


@torch.no_grad()
def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `capture` returned.

    Random numbers continue where they were if the number of processes is the same.

    Raises:
        ValueError: the model's names or shapes are not those of the checkpoint.
    """
    targets = {f"model.{name}": tensor for name, tensor in _model_tensors(model).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith("model.")}
    differing = sorted(shapes.items() ^ {(name, tuple(target.shape)) for name, target in targets.items()})
    if differing:
        raise ValueError(f"model: expected the tensors of the checkpoint; these are in one of the two: {differing[:4]}")
    for name, target in targets.items():
        target.copy_(parallel.sharded_like(tensors[name], target))
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := tensors.get(f"optimizer.{key}.{name}")) is not None:
                like = parameter if key != "step" else value
                optimizer.state[parameter][key] = parallel.sharded_like(value, like).to(like.device)
    _restore_random_states(model, tensors)


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, each once even where two layers share it, and the buffers that belong to the model's state."""
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in model.state_dict()}
    return dict(model.named_parameters()) | buffers


def _random_states(model: nn.Module) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    if device.type == "cuda":  # NCCL gathers what lies on the GPU
        return {"cpu": torch.get_rng_state().to(device), "cuda": torch.cuda.get_rng_state(device).to(device)}
    return {"cpu": torch.get_rng_state()}


def _restore_random_states(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    mine = parallel.rank() % len(tensors["random.cpu"])
    torch.set_rng_state(tensors["random.cpu"][mine].clone())
    device = next(model.parameters()).device
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"][mine].clone(), device)
