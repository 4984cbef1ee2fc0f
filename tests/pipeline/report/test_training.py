"""The report's section on training: methods, what they cost, and what collapsed."""

import re

from gradshard.pipeline.report import figures
from gradshard.pipeline.report.templates import template

RECORD = {"steps": 10, "loss": 0.1, "live_steps": 10, "live_share": 1.0}
PASSES = {"images": 500, "forward": 1000, "backward": 1125}


def shown(**training):
    html = template("training.html").render(training=training, curves_svg="", docs="docs")
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_passes_are_shown_per_image_and_step():
    page = shown(**{"fast-10": RECORD | {"method": "Fast-AT", "passes": PASSES}})
    assert "fast-10 Fast-AT 10 10 100.0 % 2.00 2.25" in page


def test_records_of_before_passes_were_counted_are_shown_without():
    assert "A_adv-10 – 10 10 100.0 % – –" in shown(**{"A_adv-10": RECORD})


def test_a_model_that_overfitted_catastrophically_is_named_in_one_sentence():
    collapse = {"epoch": 7, "pgd_error": 0.98, "least_before": 0.521}
    page = shown(**{"fast-10": RECORD | {"catastrophic_overfitting": collapse}, "pgd-10": RECORD})
    said = "its own PGD fooled it on 98.0 % of the held-back images after it, and on 52.1 % before."
    assert f"fast-10 overfitted catastrophically in epoch 7: {said}" in page
    assert "pgd-10 overfitted" not in page


def test_curves_of_a_method_without_a_clean_loss_are_drawn():
    columns = {"epoch": [1.0, 2.0], "adversarial_loss": [0.5, 0.4]}
    assert "adversarial" in figures.training_curves({"pgd": [columns]})
