"""What is said of an INT8 network's speed and size."""

from reidexport.export.quantization.speed import speed_lines


def test_a_faster_and_smaller_network_is_measured_without_a_warning() -> None:
    """The place, each batch size, and the sizes."""
    lines = speed_lines((4000, 1000), {1: (0.02, 0.01), 8: (0.1, 0.05)}, "a CPU: OpenVINO", None)
    assert lines == [
        "INT8 beside FP32 on this machine (a CPU: OpenVINO):",
        "  batch 1: INT8 100 images/s, FP32 50: 2.00 × its speed",
        "  batch 8: INT8 160 images/s, FP32 80: 2.00 × its speed",
        "  size: INT8 1 kB, FP32 4 kB",
    ]


def test_slower_and_larger_is_warned_of() -> None:
    """As OSNet x0.25 is on two cores; slower at one batch size of two is not."""
    sizes = (921_000, 987_000)
    *_, warning = speed_lines(sizes, {1: (0.01, 0.02), 8: (0.075, 0.1)}, "", None)
    assert warning.startswith("warning: the INT8 file is slower and larger than FP32's here.")
    *_, warning = speed_lines(sizes, {1: (0.01, 0.02), 8: (0.1, 0.075)}, "", None)
    assert warning.startswith("warning: the INT8 file is larger than FP32's here.")


def test_a_busy_machine_makes_speeds_doubtful() -> None:
    """What else it did is said."""
    *_, warning = speed_lines((2, 1), {1: (0.02, 0.01)}, "", "other processes used 80% of the CPU time")
    assert warning.startswith("warning: other processes used 80% of the CPU time, so the speeds are doubtful")
