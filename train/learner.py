"""The network, its losses and their optimizers: one step of training."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reidexport.models import Baseline
from train.distributed import Processes
from train.losses import CenterLoss, id_loss, triplet_loss
from train.model import TrainedModel
from train.recipe import Recipe

METRICS = ("loss", "id_loss", "triplet_loss", "center_loss", "accuracy", "gradient_norm")


class Learner:
    """What learns, and everything that a run needs to be resumed besides its place in the schedule.

    Attributes:
        baseline: the network whose weights become the checkpoint.
        center_loss: its centers are learned too; None where the trick is off.
    """

    def __init__(
        self,
        baseline: Baseline,
        recipe: Recipe,
        device: torch.device,
        *,
        processes: Processes,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        # Channels last is what convolutions are fastest in, on CPUs and on tensor cores.
        self.baseline = baseline.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe, self.processes = recipe, processes
        model: nn.Module = TrainedModel(self.baseline, autocast)
        if processes.world_size > 1:
            if device.type == "cuda":
                # One process' batch statistics would be another recipe.
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            model = DistributedDataParallel(model)
        if compiled:
            self.baseline.backbone.compile()
        self.network = model
        learned = [each for each in self.baseline.parameters() if each.requires_grad]
        schedule, losses = recipe.schedule, recipe.losses
        # A tensor, so that a CUDA graph reads it anew in every step. Adam's kernels take float32 on a GPU; on a CPU
        # float64 computes the bits of a Python number.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._rate = torch.tensor(schedule.learning_rate, dtype=dtype, device=device)
        self.optimizer = torch.optim.Adam(learned, self._rate, weight_decay=schedule.weight_decay, fused=True)
        self.center_loss: CenterLoss | None = None
        if recipe.tricks.center_loss:
            architecture = self.baseline.architecture
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(recipe.seed)
                self.center_loss = CenterLoss(architecture.num_classes, architecture.feature_dim).to(device)
            self.center_optimizer = torch.optim.SGD(
                self.center_loss.parameters(), losses.center_learning_rate
            )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Adam's rate in the steps that follow."""
        self._rate.fill_(learning_rate)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of every optimizer, which a CUDA graph can record.

        Args:
            images: float32 (B, 3, H, W), this process's part of the batch.
            labels: int64 (B,).

        Returns:
            float32 (6,), the ``METRICS`` of this process, still on the device.
        """
        recipe, losses = self.recipe, self.recipe.losses
        self.network.train()
        f_t, logits = self.network(images)
        identity = id_loss(logits, labels, losses.smoothing if recipe.tricks.label_smoothing else 0.0)
        others, other_labels = f_t, labels
        if losses.mine_across_processes:
            others, other_labels = self.processes.gather(f_t), self.processes.gather(labels)
        triplet = triplet_loss(f_t, labels, losses.triplet_margin, others, other_labels)
        center = torch.zeros_like(identity)
        total = identity + triplet
        if self.center_loss is not None:
            center = self.center_loss(f_t, labels)
            if losses.center_follows == "paper":
                center = center * (recipe.batch.num_pids * recipe.batch.num_instances / 2)
            total = total + losses.center_weight * center
            self.center_optimizer.zero_grad()
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        gradients = [each.grad for each in self.baseline.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.optimizer.step()
        if self.center_loss is not None:
            self._move_centers(self.center_loss.centers)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return torch.stack([total, identity, triplet, center, accuracy, norm]).detach()

    def _move_centers(self, centers: Tensor) -> None:
        """A step of the centers, whose gradient is freed of the loss's weight (authors' code)."""
        if centers.grad is not None:
            centers.grad = self.processes.mean(centers.grad) / self.recipe.losses.center_weight
        self.center_optimizer.step()

    def allow_recording(self) -> None:
        """Let a CUDA graph record the steps of Adam; the fused kernel is the same."""
        for group in self.optimizer.param_groups:
            group["capturable"] = True

    def state(self) -> dict[str, Any]:
        """Everything but the network's weights, as tensors and plain data."""
        state = {"optimizer": self.optimizer.state_dict()}
        if self.center_loss is not None:
            state["centers"] = self.center_loss.state_dict()
        return state

    def load(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from the weights and the :meth:`state` of another learner of the same recipe."""
        self.baseline.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group.update(lr=self._rate, capturable=False)
        if self.center_loss is not None:
            self.center_loss.load_state_dict(state["centers"])
