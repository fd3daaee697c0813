"""The trainer written out: one loop, one process, no threads, no buffers, a Python number for the learning rate."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reidexport.models import Baseline
from train.augmentation import augment, draw_augmentation
from train.images import TrainImages, plan_of_epoch
from train.losses import CenterLoss, id_loss, triplet_loss
from train.model import build_model
from train.recipe import Recipe
from train.schedule import learning_rate


def slow_training(recipe: Recipe, images: TrainImages) -> Iterator[tuple[Baseline, list[list[float]]]]:
    """Train all six tricks on a CPU from random weights: after every epoch the network and each step's metrics."""
    model = build_model(recipe, images.num_classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.manual_seed(recipe.seed)
    centers = CenterLoss(images.num_classes, model.architecture.feature_dim)
    learned = [each for each in model.parameters() if each.requires_grad]
    adam = torch.optim.Adam(
        learned, recipe.schedule.learning_rate, weight_decay=recipe.schedule.weight_decay, fused=True
    )
    sgd = torch.optim.SGD(centers.parameters(), recipe.losses.center_learning_rate)
    model.train()
    for epoch in range(1, recipe.schedule.num_epochs + 1):
        metrics = []
        for step, indices in enumerate(plan_of_epoch(images, recipe, epoch)):
            rng = np.random.default_rng((recipe.seed, epoch, 1, step))
            draws = draw_augmentation(rng, len(indices), recipe.images, recipe.erasing)
            chosen, labels = torch.from_numpy(indices), images.labels[indices]
            batch = augment(images.pixels, chosen, draws, recipe.images.pad_px, recipe.erasing)
            f_t = model.pool(model.backbone(batch))
            logits: Tensor = model.get_submodule("classifier")(model.neck(f_t))
            identity = id_loss(logits, labels, recipe.losses.smoothing)
            triplet = triplet_loss(f_t, labels, recipe.losses.triplet_margin)
            center = centers(f_t, labels)
            loss = identity + triplet + recipe.losses.center_weight * center
            adam.zero_grad()
            sgd.zero_grad()
            torch.autograd.backward(loss)
            norm = torch.nn.utils.get_total_norm([each.grad for each in learned if each.grad is not None])
            for group in adam.param_groups:
                group["lr"] = learning_rate(epoch, recipe.schedule, warmup=True)
            adam.step()
            assert centers.centers.grad is not None
            centers.centers.grad /= recipe.losses.center_weight
            sgd.step()
            accuracy = (logits.argmax(1) == labels).float().mean()
            found = (loss, identity, triplet, center, accuracy, norm)
            metrics.append([each.item() for each in found])
        yield model, metrics
