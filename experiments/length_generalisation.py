"""Byte models trained on 512 bytes at a time predict held-out bytes with up to 65536 bytes before them.

    python -m experiments.length_generalisation --folder runs/bytes --workers 4 --minutes 8 \
        --out ssm_kit/results/length_generalisation.json
    python -m experiments.length_generalisation --smoke

The models are those of `experiments.byte_language_model`: with its folder nothing is trained again. The bytes that are
predicted are the same at every context (`experiments.byte_evaluation`), so a difference is one of the model, not of the
text. Every mixer has the one learning rate that was best at the length of training (`experiments.byte_runs`).
"""

from typing import Any

from experiments import byte_runs, machine

WHAT = "Loss in nats of the same held-out bytes against how much text before them the model reads, trained on 512 bytes"
SCRIPT = "experiments/length_generalisation.py"


def main() -> None:
    """The command line."""
    design, options = byte_runs.arguments(WHAT)
    rates, _, counted = byte_runs.complete(design, options)
    parts = {
        "seeds": list(design.seeds),
        "wall_s": round(sum(record["seconds"][1] for record in counted), 1),
        "settings": byte_runs.settings(design, counted)
        | {"wall_s": "evaluation alone, sum over runs, several at a time"},
        "data": {"learning_rate": rates, "runs": [row(record) for record in counted]},
    }
    made = [record["made"] for record in counted]
    machine.write(options.out, machine.result(SCRIPT, WHAT, made, parts))


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What the result keeps of a run: its loss at every context of the settings, in nats."""
    return {
        "mixer": record["run"]["labels"]["mixer"],
        "seed": record["run"]["settings"]["seed"],
        "loss": [byte_runs.rounded(loss) for loss in record["by_context"]],
    }


if __name__ == "__main__":
    main()
