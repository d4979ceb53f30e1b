"""Every public function returns what it returned when `expected.json` was written."""

from __future__ import annotations

import pytest

from tests.characterization import kept
from tests.characterization.table import TABLE

EXPECTED = kept.load()


def test_each_entry_has_its_values():
    assert sorted(TABLE) == sorted(EXPECTED)


STRICT = frozenset(
    """activation_grid attack_apgd attack_apgd_l1 attack_autoattack attack_carlini_wagner attack_ddn
    attack_deepfool attack_fab attack_fool attack_hop_skip_jump attack_lbfgs attack_mi_fgsm
    attack_patch attack_pgd_l2 attack_square attack_universal attribution_blur_path
    attribution_deep_lift attribution_expected_gradients attribution_full_gradient
    attribution_grad_cam_plus attribution_guided_path attribution_integrated_gradients
    attribution_kernel_shap attribution_lrp attribution_occlusion attribution_rise
    attribution_shapley_sampling attribution_smoothgrad certificates clip_encode clip_invert
    deconv_plates deepdream evaluate evolve_direct faithfulness groups invert joined_inputs
    manifold_linear_shift match metrics_curves metrics_trust record robustness smooth_pools
    style_transfer sweep_layer synthesis_generate train verify visualize_channels""".split()
)
"""What the run under JAX's strict settings tries: each function once."""


AGAIN = frozenset(
    """attack_apgd_dlr attack_eot attack_fab_targeted attack_fool_from_picture
    attack_pgd_colours attack_pgd_l1 attack_pgd_targeted attack_square_l2
    attribution_integrated_midpoint attribution_shapley_game attribution_shapley_tolerance
    clip_similarity deepdream_guided evolve_cppn match_in_a_ball robustness_apgd
    style_statistics style_texture_in_scales style_transfer_adam train_robust transforms
    visualize_between visualize_composed visualize_cppn visualize_direction
    visualize_diverse visualize_kept_near visualize_layer visualize_logits visualize_maco
    visualize_maps visualize_maps_by_gradient visualize_neuron visualize_optimizers
    visualize_own_statistics visualize_pixels visualize_probability visualize_pyramid
    visualize_receptive_field visualize_regularized visualize_rgba visualize_snapshots
    visualize_transforms visualize_vectors visualize_yosinski""".split()
)
"""Functions that another entry calls too, with options whose own tests say what they do."""


def test_the_names_are_in_the_table():
    assert STRICT | AGAIN <= set(TABLE) and not STRICT & AGAIN


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in AGAIN)) for name in TABLE]
)
def test_returns_what_it_did(name, request):
    strict = request.config.option.strict_jax
    if strict and name not in STRICT:
        pytest.skip("another entry of the function runs strictly")
    # Where optax counts with 64 bits it rounds otherwise, which Adam enlarges.
    room = 50 if strict else 1
    call, expected = TABLE[name], EXPECTED[name]
    found = call.run()
    assert list(found) == list(expected)
    wrong = {
        key: kept.differences(
            array, expected[key], room * call.rtol, room * call.atol, rest=key == "gap"
        )
        for key, array in found.items()
    }
    lines = [f"{name}: {key}: {line}" for key, all_lines in wrong.items() for line in all_lines]
    assert not lines, "\n".join(lines)
