"""How many workers fit each node of a cluster, and whether each node has what they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from studies.workers.cargo import Cargo

_ANSWER_S = 120.0
"""Seconds that a node may take to start a process and to look at its disk."""
_KIND = "accelerator_type:"  # Ray's resource of a node's kind of GPU


def workers_of(resources: Mapping[str, float], gpus: float) -> int:
    """Counts the workers that fit a node.

    Ray splits no share over two GPUs: of 0.4 GPU, two fit each.

    Args:
        resources: CPU cores and GPUs of the node, as Ray names them.
        gpus: GPUs of a worker.
    """
    cores, cards = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if gpus == 0:
        return cores
    return min(cores, cards * int(1 / gpus + 1e-9) if gpus <= 1 else int(cards / gpus))


def shares(workers: int | None, gpus_per_worker: float | None) -> tuple[int, float]:
    """Returns the number of workers and the GPUs of each.

    Args:
        workers: As the user asked; None for as many as fit.
        gpus_per_worker: As the user asked; None for 1 where there is a GPU, else 0.

    Raises:
        UserError: If so many do not fit, or a share is more than one GPU and not whole.
    """
    nodes = [node["Resources"] for node in alive()]
    cards, cores = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
    gpus = gpus_per_worker if gpus_per_worker is not None else float(cards > 0)
    if gpus > 1 and gpus != int(gpus):
        raise UserError(f"`gpus_per_worker` must be whole above 1, but got {gpus:g}; give {int(gpus)}.")
    fitting = sum(workers_of(node, gpus) for node in nodes)
    if fitting < (workers or 1):
        raise UserError(
            f"{workers or 1} workers with {gpus:g} GPUs and 1 core each do not fit {cards} GPUs and {cores} "
            f"cores on {len(nodes)} machines; at most {fitting} do. Ask for fewer --workers or less "
            "--gpus-per-worker."
        )
    return workers or fitting, gpus


def check_alike(gpus: float) -> None:
    """Refuses GPUs of several kinds, which take different times for the same work.

    Args:
        gpus: GPUs of a worker.

    Raises:
        UserError: If nodes on which workers fit have them.
    """
    nodes = [node["Resources"] for node in alive() if workers_of(node["Resources"], gpus)]
    kinds = sorted({name.removeprefix(_KIND) for node in nodes for name in node if name.startswith(_KIND)})
    if gpus and len(kinds) > 1:
        raise UserError(
            f"A budget in seconds holds for one kind of GPU, and this cluster has {', '.join(kinds)}; give a "
            "budget in TFLOPs, or join a cluster of one kind."
        )


def alive() -> list[dict[str, Any]]:
    """Lists the nodes of the cluster that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(cargo: Cargo, gpus: float) -> None:
    """Asks each node on which workers fit whether they can run there.

    Args:
        cargo: What workers need.
        gpus: GPUs of a worker.

    Raises:
        UserError: If a node lacks something or does not answer; it names all such nodes.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    import tuner
    from studies.workers.cargo import missing

    look = ray.remote(num_cpus=0, max_retries=0)(missing)
    asked = {}
    for node in alive():
        if workers_of(node["Resources"], gpus):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(scheduling_strategy=there).remote(cargo, tuner.__version__)] = node
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    problems = []
    left = {node["NodeID"] for node in alive()}
    for answer, node in asked.items():
        if node["NodeID"] not in left:  # lost meanwhile: the study goes on without it
            continue
        reason: str | None = f"it did not answer within {_ANSWER_S:.0f} s"
        try:
            reason = ray.get(answer) if answer in answered else reason
        except RayTaskError as error:
            reason = one_line(error.cause)
        except RayError as error:
            reason = one_line(error)
        if reason is not None:
            problems.append(f"node {node['NodeManagerAddress']} ({node['NodeID'][:8]}) cannot work: {reason}")
    if problems:
        raise UserError(f"{'; '.join(problems)}.")
