"""The step on buffers, recorded and replayed, against the trainer written out."""

import pytest
import torch
from torch import nn

from reidexport.data.synthetic import draw_dataset
from tests.standins.operation_recorder import OperationRecorder
from tests.standins.slow_training import slow_training
from train import whole_step
from train.distributed import Processes
from train.images import TrainImages, drawn_batch, load_train_images, plan_of_epoch
from train.learner import Learner
from train.model import build_model
from train.recipe import Recipe, load_recipe
from train.schedule import learning_rate
from train.whole_step import WholeStep, steps_of_epoch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """All tricks of the losses; two epochs with different learning rates."""
    sizes = ("images.height_px=32", "images.width_px=16", "batch.num_pids=4", "batch.num_instances=2")
    sizes += ("model.backbone=osnet_x0_25", "tricks.last_stride_1=false")
    return load_recipe("smoke", [*sizes, "schedule.num_epochs=2", "schedule.decay_epochs=[2]"])


@pytest.fixture(scope="module")
def images(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainImages:
    """Eight people, a few images each."""
    root = tmp_path_factory.mktemp("whole") / "drawn"
    drawn = draw_dataset(root, num_train_pids=8, num_test_pids=2, num_cameras=2, images_per_camera=3)
    return load_train_images(drawn.train, recipe.images.height_px, recipe.images.width_px, CPU, workers=1)


def make_step(recipe: Recipe, images: TrainImages, recorder: OperationRecorder) -> tuple[WholeStep, Learner]:
    """A step, and the learner in it."""
    learner = Learner(build_model(recipe, images.num_classes), recipe, CPU, processes=Processes())
    return WholeStep(learner, images, recipe, 8, recorder=recorder), learner


def test_a_recorded_step_is_the_plain_one(recipe: Recipe, images: TrainImages) -> None:
    """Three plain steps, then replays in both epochs: metrics and weights are the written-out trainer's, bit for bit.

    A learning rate or a draw that the recording had baked in would differ from the fourth step on.
    """
    recorder = OperationRecorder()
    step, learner = make_step(recipe, images, recorder)
    for epoch, (model, expected) in enumerate(slow_training(recipe, images), start=1):
        plan = plan_of_epoch(images, recipe, epoch)
        assert len(plan) > 4
        learner.set_learning_rate(learning_rate(epoch, recipe.schedule, warmup=True))
        found = []
        for place in range(len(plan)):
            step.fill(*drawn_batch(recipe, epoch, plan, place, 0, 1))
            found.append(step.run().tolist())
        assert found == expected
        weights = learner.baseline.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert step.why_plain is None
    assert recorder.num_recorded > 100


def test_a_network_that_draws_random_numbers_is_not_recorded(recipe: Recipe, images: TrainImages) -> None:
    """Dropout anywhere: every step is plain, and the reason is reported."""
    recorder = OperationRecorder()
    step, learner = make_step(recipe, images, recorder)
    learner.baseline.neck = nn.Sequential(nn.Dropout(0.5), learner.baseline.neck)
    plan = plan_of_epoch(images, recipe, 1)
    for place in range(5):
        step.fill(*drawn_batch(recipe, 1, plan, place, 0, 1))
        step.run()
    assert step.why_plain == "the network draws random numbers (dropout)"
    assert recorder.num_recorded == 0


class Clock:
    """A stand-in for CUDA's events: every record is made a second after the one before."""

    now_s = 0

    def record(self) -> None:
        """Take place."""
        Clock.now_s += 1
        self.at_s = Clock.now_s

    def elapsed_time(self, end: "Clock") -> float:
        """Milliseconds until another one."""
        return 1000.0 * (end.at_s - self.at_s)


def test_an_epoch_s_steps_tell_how_long_they_waited(
    recipe: Recipe, images: TrainImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the middle on: the metrics of the steps alone, and the time from the end of one to the start of the next."""
    monkeypatch.setattr(whole_step, "_event", Clock)
    plan = plan_of_epoch(images, recipe, 1)
    alone, _ = make_step(recipe, images, OperationRecorder())
    expected = []
    for place in range(1, len(plan)):
        alone.fill(*drawn_batch(recipe, 1, plan, place, 0, 1))
        expected.append(alone.run().tolist())
    step, _ = make_step(recipe, images, OperationRecorder())
    steps = list(steps_of_epoch(step, recipe, 1, plan, 1, Processes()))
    assert [metrics.tolist() for metrics, _ in steps] == expected
    assert [waited_s() for _, waited_s in steps] == [0.0, *[1.0] * (len(plan) - 2)]
