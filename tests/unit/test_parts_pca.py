"""parts-pca: what the fit keeps, and that it is defined on any mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from workers.adaptors.parts_pca import PartsPca, fit_parts_pca

NAMES = ("title", "content", "mood")
WIDTH = 6


def catalogue(count: int = 40, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    parts = np.random.default_rng(seed).standard_normal((count, len(NAMES), WIDTH))
    return (parts + 3.0).astype(np.float32), np.ones((count, len(NAMES)), np.bool_)


def fitted(parts: np.ndarray, mask: np.ndarray, dim: int = 4) -> PartsPca:
    return fit_parts_pca(parts, mask, name="pca", encoder_id="fake", part_names=NAMES, dim=dim)


def test_a_complete_catalogue_is_centred_shrunk_and_half_whitened():
    parts, mask = catalogue()

    adaptor = fitted(parts, mask, dim=4)

    flat = parts.reshape(len(parts), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    left, singular, _ = np.linalg.svd(flat, full_matrices=False)
    variances, noise = singular[:4] ** 2 / len(parts), np.square(flat).mean()
    wanted = left[:, :4] * np.sqrt(singular[:4]) * variances / (variances + noise)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    cosines = adaptor.apply(parts, mask) @ adaptor.apply(parts, mask).T
    np.testing.assert_allclose(cosines, wanted @ wanted.T, atol=1e-4)


def test_more_items_than_values_gives_the_same_axes_as_fewer():
    # Below 18 items the item Gram matrix is decomposed, above it the covariance of the values.
    parts, mask = catalogue(18)
    twice = np.concatenate([parts, parts]), np.concatenate([mask, mask])

    few, many = fitted(parts, mask), fitted(*twice)

    np.testing.assert_allclose(few.apply(parts, mask), many.apply(parts, mask), atol=1e-4)


def test_the_order_of_the_catalogue_does_not_matter():
    parts, mask = catalogue()
    shuffled = np.random.default_rng(7).permutation(len(parts))

    one, other = fitted(parts, mask), fitted(parts[shuffled], mask[shuffled])

    np.testing.assert_allclose(one.projection, other.projection, atol=1e-4)


def test_the_greatest_loading_of_every_component_is_positive():
    adaptor = fitted(*catalogue())

    greatest = np.abs(adaptor.projection).argmax(axis=0)

    assert (adaptor.projection[greatest, np.arange(adaptor.space.dim)] > 0).all()


@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12),
    st.integers(0, 1000),
)
def test_every_mask_gives_finite_vectors_of_length_one(rows, seed):
    adaptor = fitted(*catalogue())
    parts, _ = catalogue(len(rows), seed=seed)
    mask = np.array(rows)
    known = mask.any(axis=1)

    vectors = adaptor.apply(parts, mask)

    np.testing.assert_allclose(np.linalg.norm(vectors[known], axis=1), 1.0, atol=1e-5)
    assert np.array_equal(
        vectors[~known], np.broadcast_to(adaptor.default, ((~known).sum(), adaptor.space.dim))
    )


def test_what_stands_in_a_missing_part_has_no_effect():
    parts, mask = catalogue()
    adaptor = fitted(parts, mask)
    mask[:, 1] = False
    other = parts.copy()
    other[:, 1] = np.nan

    assert np.array_equal(adaptor.apply(parts, mask), adaptor.apply(other, mask))


def test_a_missing_part_is_inferred_as_a_gaussian_of_the_fitted_model_would():
    parts, mask = catalogue()
    adaptor = fitted(parts, mask)
    lacking = mask.copy()
    lacking[:, 2] = False

    vectors = adaptor.apply(parts, lacking)

    # The same by the book: condition the Gaussian N(0, W W' + noise) of all values on some of them.
    weights = np.linalg.norm(adaptor.projection, axis=0)
    deviations = np.sqrt(adaptor.variances)
    loadings = (adaptor.projection / weights * deviations).astype(np.float64)
    seen = loadings[: 2 * WIDTH]
    covariance = seen @ seen.T + adaptor.noise[0] * np.eye(2 * WIDTH)
    centred = (parts - adaptor.mean)[:, :2].reshape(len(parts), -1)
    wanted = centred @ np.linalg.solve(covariance, seen) * np.sqrt(deviations)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, wanted, atol=1e-4)


def test_an_item_without_its_last_part_lies_near_where_it_will_lie_with_it():
    drawn = np.random.default_rng(5)
    taste = drawn.standard_normal((300, 2))
    rows = (taste @ drawn.standard_normal((2, len(NAMES) * WIDTH))).reshape(-1, len(NAMES), WIDTH)
    parts = (rows + 0.3 * drawn.standard_normal(rows.shape)).astype(np.float32)
    mask = np.ones((300, len(NAMES)), np.bool_)
    adaptor = fitted(parts, mask, dim=2)
    lacking = mask.copy()
    lacking[:, 1:] = False

    inferred = adaptor.apply(parts, lacking)
    whole = adaptor.apply(parts, mask)

    mean_filled = np.where(lacking[:, :, None], parts, adaptor.mean)
    filled = adaptor.apply(mean_filled, mask)
    assert (inferred * whole).sum(axis=1).mean() > (filled * whole).sum(axis=1).mean() + 0.01


def test_the_mean_of_a_part_is_over_the_items_that_have_it():
    parts, mask = catalogue()
    mask[10:, 2] = False

    adaptor = fitted(parts, mask)

    np.testing.assert_allclose(adaptor.mean[2], parts[:10, 2].mean(axis=0), atol=1e-5)


def test_a_part_that_no_item_had_gets_no_say_later():
    parts, mask = catalogue()
    mask[:, 2] = False
    adaptor = fitted(parts, mask)
    later = mask.copy()
    later[:, 2] = True

    np.testing.assert_array_equal(adaptor.apply(parts, mask), adaptor.apply(parts, later))


def test_an_item_gets_the_same_vector_alone_and_among_others():
    parts, mask = catalogue()
    adaptor = fitted(parts, mask)

    together = adaptor.apply(parts, mask)
    alone = np.concatenate([adaptor.apply(parts[i : i + 1], mask[i : i + 1]) for i in range(40)])

    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_catalogue_of_low_rank_leaves_the_last_components_zero():
    parts, mask = catalogue(3)

    adaptor = fitted(parts, mask, dim=8)

    vectors = adaptor.apply(parts, mask)
    assert vectors.shape == (3, 8)
    assert not vectors[:, 2:].any()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_the_space_says_what_it_was_fitted_on():
    parts, mask = catalogue()
    mask[30:, 2] = False
    mask[39] = False

    space = fitted(parts, mask).space

    assert space.fitted_on["items"] == 39
    assert space.fitted_on["items_with_mood"] == 30
    assert space.fitted_on["digest"] != fitted(*catalogue()).space.fitted_on["digest"]
    assert space.fitted_on["digest"] == fitted(parts, mask).space.fitted_on["digest"]


def test_what_a_missing_part_holds_does_not_change_the_space():
    parts, mask = catalogue()
    mask[5, 2] = False
    other = parts.copy()
    other[5, 2] = np.nan

    assert fitted(parts, mask).space == fitted(other, mask).space


@pytest.mark.parametrize("described", [0, 1])
def test_a_catalogue_without_two_described_items_is_refused(described):
    parts, mask = catalogue(5)
    mask[described:] = False

    with pytest.raises(ConfigurationError, match=f"on {described} items"):
        fitted(parts, mask)


def test_a_catalogue_of_equal_items_is_refused():
    parts, mask = catalogue(4)
    parts[:] = parts[0]

    with pytest.raises(ConfigurationError, match="nothing to tell apart"):
        fitted(parts, mask)


def test_more_dimensions_than_values_are_refused():
    with pytest.raises(ConfigurationError, match="dim 19"):
        fitted(*catalogue(), dim=19)
