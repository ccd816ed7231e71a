"""Oracles: optax's losses, sklearn's metrics, networks called image by image."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import ndimage
from sklearn import metrics

from physml import classify, data, fit, nn
from physml.data import Images
from physml.nn import Dense, Dropout, Filters, Pool

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LABELS = np.arange(23) % 4
IMAGES = Images.from_arrays(RNG.normal(size=(23, 6, 6, 1)), LABELS)
LAYERS = (Filters(3, batch_norm=True), Pool(), Dropout(0.5), Dense(5))


def network(seed=0, layers=LAYERS):
    rng = np.random.default_rng(seed)

    def draw(key, shape, dtype):  # an initialiser that has nothing to compile
        return jnp.asarray(rng.normal(size=shape) / 4, dtype)

    return nn.CNN((6, 6, 1), layers, 4, kernel_init=draw, bias_init=draw, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def net():
    net = network()
    norm = net.blocks[0].layer.norm
    norm.mean[...], norm.var[...] = jnp.array([0.1, -0.2, 0.3]), jnp.array([0.5, 1.0, 2.0])
    return net


@pytest.fixture(scope="module")
def stacked():
    nets = [network(seed, (Dense(5),)) for seed in range(3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)


def linear(images):
    """A model without variables: some pixels of an image."""
    return images.reshape(images.shape[0], -1)[:, :4]


def probable(*shape):
    values = np.random.default_rng(shape).exponential(size=shape)
    return values / values.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_optaxs(smoothing):
    value, aux = classify.cross_entropy(label_smoothing=smoothing)(linear, IMAGES, None)
    logits = np.asarray(linear(IMAGES.images))
    targets = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    expected = optax.softmax_cross_entropy(logits, jnp.asarray(targets)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    expected = metrics.accuracy_score(LABELS, logits.argmax(axis=1))
    np.testing.assert_allclose(aux["accuracy"], expected)


def test_strengths_of_the_loss_and_of_the_model_add():
    net = network(layers=(Dense(5),))
    plain, both = (
        classify.cross_entropy(l2=l2)(model, IMAGES, None)[0]
        for l2, model in [(0.0, net), (0.2, nn.Regularised(net, 0.1))]
    )
    np.testing.assert_allclose(both - plain, 0.3 * nn.square_norm(net), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [5, 23, 50])
def test_losses_do_not_depend_on_the_block(batch_size):
    for loss in (classify.cross_entropy, classify.error_rate):
        value, _ = loss(batch_size=batch_size)(linear, IMAGES, None)
        np.testing.assert_allclose(value, loss(batch_size=None)(linear, IMAGES, None)[0])
    expected = 1 - metrics.accuracy_score(LABELS, np.asarray(linear(IMAGES.images)).argmax(1))
    np.testing.assert_allclose(value, expected)


def test_no_error_is_exactly_none():
    images = data.Images.from_arrays(np.zeros((7, 2, 2), np.float32), np.arange(7) % 3)
    right = jax.nn.one_hot(images.labels, 3, dtype=jnp.float32)
    assert classify.error_rate()(lambda x: right, images, None)[0] == 0
    assert classify.cross_entropy()(lambda x: right, images, None)[1]["accuracy"] == 1


def test_predictions_are_those_of_the_network_in_evaluation_mode(net):
    graph, state = nnx.split(net)
    before = jax.tree.leaves(state)
    logits = classify.logits(net, IMAGES, batch_size=5)
    probabilities = classify.probabilities(net, IMAGES.images, batch_size=7)
    for a, b in zip(before, jax.tree.leaves(nnx.split(net)[1]), strict=True):
        assert a is b or (a == b).all()
    assert not net.blocks[1].deterministic  # as it was
    evaluating = nnx.merge(graph, state, copy=True)
    evaluating.eval()
    expected = jnp.stack([evaluating(image) for image in IMAGES.images[:3]])
    np.testing.assert_allclose(logits[:3], expected, rtol=1e-12)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-12)


def test_members_are_the_models_alone(stacked):
    members = classify.member_probabilities(stacked, IMAGES, batch_size=10)
    assert members.shape == (3, 23, 4)
    for i in range(3):
        alone = jax.tree.map(lambda x, i=i: x[i], stacked)
        expected = classify.probabilities(alone, IMAGES, batch_size=10)
        np.testing.assert_allclose(members[i], expected, rtol=1e-12)


def test_images_on_two_devices_are_classified_there(net, stacked):
    mesh = jax.sharding.Mesh(jax.devices(), ("rows",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    images = jnp.asarray(IMAGES.images[:22])
    divided = jax.device_put(images, rows)
    net = jax.device_put(net, jax.devices()[0])  # as a model that is tied to its device
    for predict, model in ((classify.logits, net), (classify.member_probabilities, stacked)):
        found = predict(model, divided, batch_size=4)
        assert {shard.data.shape[-2] for shard in found.addressable_shards} == {11}
        expected = predict(model, images, batch_size=4)
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


def test_a_sweep_has_a_strength_for_each_model():
    strengths = jnp.array([0.0, 0.1])
    start = network(layers=(Dense(5),))
    options = {"steps": 2, "batch_size": 10, "key": KEY, "optimizer": lambda _: optax.sgd(0.1)}
    options |= {"valid": IMAGES, "valid_loss": classify.error_rate(batch_size=10)}

    def build(strength):
        return nn.Regularised(network(layers=(Dense(5),)), strength)

    swept = fit.sweep(classify.cross_entropy(), build, IMAGES, settings=strengths, **options)
    losses = swept.history["loss"]
    assert losses.shape == (2, 2)
    np.testing.assert_allclose(np.diff(losses[0]), 0.1 * nn.square_norm(start), rtol=1e-9)
    members = classify.member_probabilities(swept.models, IMAGES)
    errors = [1 - classify.accuracy(member, LABELS) for member in members]
    np.testing.assert_allclose(errors, swept.history["valid_loss"].min(axis=0))


def test_confusions_are_sklearns():
    probabilities = probable(50, 4)
    labels = RNG.integers(3, size=50, dtype=np.uint8)  # none of the last class
    expected = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(4))
    found = classify.confusion_matrix(probabilities, labels)
    np.testing.assert_array_equal(found, expected, strict=True)
    accuracy = classify.accuracy(probabilities, labels)
    np.testing.assert_allclose(accuracy, np.trace(expected) / expected.sum())


def test_a_sure_classifier_is_calibrated_as_it_is_right():
    # 0.75 sure and right 3 times of 4; then 0.95 sure and right every other time; nothing between.
    sure = np.repeat([0.75, 0.95], 4)
    probabilities = np.column_stack([sure, 1 - sure])
    labels = np.array([0, 0, 0, 1, 0, 1, 0, 1])
    found = classify.calibration(probabilities, labels, bins=10)
    np.testing.assert_allclose(found.edges, np.arange(11) / 10)
    np.testing.assert_array_equal(found.counts, [0, 0, 0, 0, 0, 0, 0, 4, 0, 4])
    np.testing.assert_allclose(found.confidence[[7, 9]], [0.75, 0.95])
    np.testing.assert_allclose(found.accuracy[[7, 8, 9]], [0.75, np.nan, 0.5])
    np.testing.assert_allclose(found.error, 0.5 * 0.45)
    quarters = classify.calibration(probabilities, labels, bins=4)
    np.testing.assert_array_equal(quarters.counts, [0, 0, 4, 4])  # an edge is in the bin below
    one = classify.calibration(np.eye(2)[labels], labels, bins=1)
    np.testing.assert_allclose((one.error, one.accuracy[0]), (0, 1))


def test_labels_drawn_from_the_probabilities_are_calibrated():
    probabilities = probable(40_000, 3)
    draws = np.random.default_rng(1).uniform(size=(40_000, 1))
    labels = (draws > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1)
    found = classify.calibration(probabilities, labels)
    kept = found.counts > 0
    spread = np.sqrt(found.confidence * (1 - found.confidence) / np.maximum(found.counts, 1))[kept]
    assert (np.abs(found.accuracy - found.confidence)[kept] < 4 * spread).all()
    expected = (found.counts[kept] / 40_000 * spread).sum() * np.sqrt(2 / np.pi)
    assert found.error < 2 * expected


def test_top_errors_are_the_surest():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.05, 0.95]])
    labels = np.array([0, 0, 0, 1, 0])
    found = classify.top_errors(probabilities, labels, 2)
    np.testing.assert_array_equal(found.index, [4, 1])
    np.testing.assert_array_equal(found.predicted, [1, 1])
    np.testing.assert_array_equal(found.labels, [0, 0])
    np.testing.assert_allclose(found.confidence, [0.95, 0.8])
    assert len(classify.top_errors(probabilities, labels, 9).index) == 3


def test_evaluation_is_sklearns():
    probabilities = probable(23, 4)
    found = classify.evaluate(probabilities, IMAGES, errors=3)
    predicted = probabilities.argmax(axis=1)
    np.testing.assert_allclose(found.accuracy, metrics.accuracy_score(LABELS, predicted))
    np.testing.assert_allclose(found.cross_entropy, metrics.log_loss(LABELS, probabilities))
    recall = metrics.recall_score(LABELS, predicted, average=None)
    np.testing.assert_allclose(found.class_accuracy, recall)
    assert found.calibration.error == classify.calibration(probabilities, LABELS).error
    assert len(found.top_errors.index) == 3
    impossible = np.eye(4)[(LABELS + 1) % 4]
    worst = classify.evaluate(impossible, IMAGES)
    np.testing.assert_allclose(worst.cross_entropy, metrics.log_loss(LABELS, impossible))


def test_summary_names_classes_and_their_confusions():
    images = Images.from_arrays(np.zeros((6, 2, 2)), [0, 0, 0, 0, 1, 2], ("cat", "dog", "owl"))
    taken = np.array([0, 0, 1, 2, 1, 2])
    summary = classify.evaluate(np.eye(3)[[0, 0, 1, 1, 1, 2]], images).summary().splitlines()
    assert summary[1].split() == ["cat", "4", "50.00", "%", "dog", "(2)"]
    assert summary[2].split() == ["dog", "1", "100.00", "%"]
    assert summary[4].split() == ["all", "6", "66.67", "%"]
    assert "calibration error 0.3333" in summary[5]
    absent = classify.evaluate(np.eye(3)[taken[:4]], images[:4])
    np.testing.assert_allclose(absent.class_accuracy, [0.5, np.nan, np.nan])
    assert absent.summary().splitlines()[2].split() == ["dog", "0"]


def grids(height, width):
    """An image of ones, one of each pixel's row and one of its column, as channels."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.ones_like(rows), rows, columns], axis=-1).astype(float)


def test_shift_and_flip_are_those_of_scipy():
    augment = classify.Augmentation(shift=2, flip=True)
    photo = RNG.integers(256, size=(5, 7, 3), dtype=np.uint8)
    moved = np.asarray(augment(jnp.asarray(np.stack([photo] * 400)), KEY))
    # Where an image's middle pixel comes from says how it was moved, since no two are alike.
    seen = set()
    for new in moved:
        i, j = next(zip(*np.nonzero((photo == new[2, 3]).all(axis=-1)), strict=True))
        candidates = [(2 - i, 3 - j, photo), (2 - i, 3 - (6 - j), photo[:, ::-1])]
        shifted = [ndimage.shift(p, (dy, dx, 0), order=0) for dy, dx, p in candidates]
        (found,) = [k for k, image in enumerate(shifted) if np.array_equal(new, image)]
        seen.add((found, *candidates[found][:2]))
    assert seen == {(k, i, j) for k in (0, 1) for i in range(-2, 3) for j in range(-2, 3)}


@pytest.mark.parametrize(("flip", "channels"), [(False, 1), (True, 2)])
def test_rotation_and_zoom_are_those_of_scipy(flip, channels):
    augment = classify.Augmentation(shift=1, rotation=30.0, scale=0.2, flip=flip)
    photo, size = RNG.normal(size=(11, 12, channels)), (11, 12)
    middle = (np.array(size) - 1) / 2
    both = np.concatenate([grids(*size), photo], axis=-1)
    moved = np.asarray(augment(jnp.asarray(np.stack([both] * 40)), KEY))
    angles, zooms, signs, shifts = [], [], [], []
    for new in moved:
        # Linear functions are interpolated exactly: the grids say which pixel came from where.
        inside = np.isclose(new[..., 0], 1, atol=1e-12)
        targets = np.argwhere(inside) - middle
        affine = np.column_stack([targets, np.ones(len(targets))])
        solution, residual, *_ = np.linalg.lstsq(affine, new[inside][:, 1:3])
        assert residual.max() < 1e-20
        matrix, offset = solution[:2].T, solution[2]
        origin, border = offset - matrix @ middle, {"order": 1, "mode": "grid-constant"}
        for c in range(channels):
            expected = ndimage.affine_transform(photo[..., c], matrix, origin, **border)
            np.testing.assert_allclose(new[..., 3 + c], expected, atol=1e-12)
        zoom = abs(np.linalg.det(matrix)) ** -0.5
        signs.append(round(np.linalg.det(matrix) * zoom**2))
        np.testing.assert_allclose(zoom**2 * matrix @ matrix.T, np.eye(2), atol=1e-12)
        angles.append(np.degrees(np.arctan2(-matrix[0, 1], matrix[0, 0])))
        zooms.append(zoom)
        shifts.append(np.linalg.solve(matrix, middle - offset))
    for values, bound in ((angles, 30.0), (np.array(zooms) - 1, 0.2)):
        assert 0.8 * bound < np.max(values) < bound and -bound < np.min(values) < -0.8 * bound
    np.testing.assert_allclose(np.unique(np.round(shifts, 9)), [-1, 0, 1])
    assert set(signs) == ({-1, 1} if flip else {1})


def test_an_augmentation_keeps_the_rest_of_a_record_and_follows_its_key():
    augment = classify.Augmentation(shift=1)
    moved = augment(IMAGES, KEY)
    assert moved.labels is IMAGES.labels and moved.names == IMAGES.names
    np.testing.assert_array_equal(moved.images, augment(IMAGES.images, KEY))
    assert (moved.images != augment(IMAGES.images, jax.random.key(1))).any()
    np.testing.assert_array_equal(jax.jit(augment)(IMAGES, KEY).images, moved.images)
    np.testing.assert_array_equal(classify.Augmentation()(IMAGES.images, KEY), IMAGES.images)


def test_a_slight_rotation_is_none():
    plain = classify.Augmentation(shift=2, flip=True)(IMAGES.images, KEY)
    slight = classify.Augmentation(shift=2, flip=True, rotation=1e-9)(IMAGES.images, KEY)
    np.testing.assert_allclose(plain, slight, atol=1e-9)


def test_half_precision_and_images_without_a_square_shape():
    augment = classify.Augmentation(shift=1, rotation=20.0)
    pixels = jnp.asarray(RNG.normal(size=(4, 5, 9, 2)))
    half = augment(pixels.astype(jnp.float16), KEY)
    assert half.dtype == jnp.float16
    single = augment(pixels.astype(jnp.float16).astype(jnp.float32), KEY)
    np.testing.assert_array_equal(half, single.astype(jnp.float16))


def test_views_are_averaged():
    augment = classify.Augmentation(flip=True, shift=1)
    averaged = classify.probabilities(linear, IMAGES, views=3, augment=augment, key=KEY)
    views = [augment(IMAGES, key) for key in jax.random.split(KEY, 2)]
    each = [classify.probabilities(linear, view) for view in (IMAGES, *views)]
    np.testing.assert_allclose(averaged, sum(each[1:], each[0]) / 3, rtol=1e-12)
    assert jnp.abs(averaged - each[0]).max() > 1e-3


def test_fit_is_adamw_in_one_cycle():
    options = {"epochs": 2, "batch_size": 5, "learning_rate": 0.1, "weight_decay": 0.3}
    net = nn.CNN((6, 6, 1), [nn.Filters(2)], 4, rngs=nnx.Rngs(0))
    fitted = classify.fit(net, IMAGES, key=KEY, label_smoothing=0.1, **options)
    # Optax's own schedules do not keep to strict dtypes.
    cycle = fit.OneCycle(0.1, 8)
    optimizer = fit.scheduled(optax.adamw, learning_rate=cycle, weight_decay=0.3)
    loss = classify.cross_entropy(label_smoothing=0.1)
    expected = fit.gradient(loss, net, IMAGES, optimizer=optimizer, epochs=2, batch_size=5, key=KEY)
    np.testing.assert_allclose(fitted.history["loss"], expected.history["loss"], rtol=1e-12)
    judged = classify.fit(net, IMAGES, IMAGES, key=KEY, **options)
    errors = 1 - classify.accuracy(classify.logits(judged.model, IMAGES), IMAGES.labels)
    assert len(judged.history["valid_loss"]) == 2
    np.testing.assert_allclose(errors, judged.history["valid_loss"].min(), rtol=1e-12)


@pytest.mark.slow
def test_digits_by_one_cycle_with_augmentation():
    train, valid, test = data.digits().scaled("float32").split((0.7, 0.1, 0.2), KEY)
    net = nn.CNN((8, 8, 1), nn.ARCHITECTURES["digits"], 10, dtype="float32", rngs=nnx.Rngs(0))
    augment = classify.Augmentation(rotation=10.0, scale=0.1)
    options = {"epochs": 60, "batch_size": 50, "learning_rate": 1e-2, "label_smoothing": 0.05}
    fitted = classify.fit(net, train, valid, key=KEY, augment=augment, **options)
    views = {"views": 9, "augment": augment, "key": KEY}
    for options in ({}, views):
        found = classify.evaluate(classify.probabilities(fitted.model, test, **options), test)
        assert found.accuracy > 0.975 and found.calibration.error < 0.12
    best = 1 - classify.accuracy(classify.logits(fitted.model, valid), valid.labels)
    np.testing.assert_allclose(best, fitted.history["valid_loss"].min(), atol=1e-6)


PIXELS = IMAGES.images
CROSS_ENTROPY, ERRORS = classify.cross_entropy(), classify.error_rate()
RENAMED = Images(PIXELS, IMAGES.labels, ("3", "2", "1", "0"))
ONE_EMPTY = Images(PIXELS, IMAGES.labels, (*IMAGES.names, "none"))
UNSIGNED = np.zeros((2, 6, 6, 1), np.uint8)
SOME = probable(2, 4)


def three(images):
    """A model with a logit too few."""
    return linear(images)[:, :3]


def fitted(train, valid=None):
    network = nn.CNN((6, 6, 1), [], 4, rngs=nnx.Rngs(0))
    return classify.fit(network, train, valid, epochs=1, key=KEY)


BAD_VALUES = [
    (lambda: classify.cross_entropy(label_smoothing=1.0), "label_smoothing"),
    (lambda: classify.cross_entropy(l2=-1.0), "l2 must not be negative"),
    (lambda: CROSS_ENTROPY(jnp.asarray, IMAGES, None), r"\(23, classes\), got \(23, 6, 6, 1\)"),
    (lambda: classify.error_rate(batch_size=0), "batch_size"),
    (lambda: ERRORS(three, IMAGES, None), "the 4 classes of the images, got 3"),
    (lambda: classify.logits(linear, PIXELS[0]), r"got shape \(6, 6, 1\)"),
    (lambda: classify.logits(linear, PIXELS[:0]), "not empty"),
    (lambda: classify.logits(linear, IMAGES, batch_size=0), "batch_size"),
    (lambda: classify.probabilities(linear, IMAGES, views=0), "views"),
    (lambda: classify.probabilities(linear, IMAGES, views=2), "augment and key"),
    (lambda: classify.probabilities(linear, IMAGES, key=KEY), "more than 1"),
    (lambda: classify.Augmentation(shift=-1), "shift must be at least 0"),
    (lambda: classify.Augmentation(rotation=200.0), "0 to 180"),
    (lambda: classify.Augmentation(scale=1.0), "less than 1"),
    (lambda: classify.Augmentation(shift=6)(IMAGES, KEY), "6 x 6 pixels, got 6"),
    (lambda: classify.Augmentation()(PIXELS[0], KEY), r"got \(6, 6, 1\)"),
    (lambda: classify.accuracy(probable(5, 4), [0, 1]), r"shape \(5,\)"),
    (lambda: classify.accuracy(np.zeros((0, 4)), []), "not empty"),
    (lambda: classify.accuracy(SOME, [0, 4]), "got 4 at index 1"),
    (lambda: classify.accuracy(SOME * np.nan, [0, 1]), "finite"),
    (lambda: classify.calibration(SOME, [0, 1], bins=0), "bins"),
    (lambda: classify.calibration(SOME + 1, [0, 1]), "sum of 5 in row 0"),
    (lambda: classify.top_errors(SOME, [0, 1], -1), "k must be at leas"),
    (lambda: fitted(IMAGES, RENAMED), "valid must have the classes of train, .*, got"),
    (lambda: fitted(ONE_EMPTY), "train must have images of every class, got none of none"),
    (lambda: classify.evaluate(probable(23, 5), IMAGES), "the 4 classes"),
    (lambda: classify.confusion_matrix(probable(3, 2, 4), [0, 1]), "one model"),
]
BAD_TYPES = [
    (lambda: classify.logits(linear, UNSIGNED), "Images.scaled"),
    (lambda: classify.Augmentation(shift=1.5), "integer"),
    (lambda: classify.Augmentation(rotation=5.0)(UNSIGNED, KEY), "floats to be rotated"),
    (lambda: classify.accuracy(np.eye(2, dtype=int), [0, 1]), "must be floats"),
    (lambda: classify.accuracy(SOME, [0.0, 1.0]), "integers"),
]


@pytest.mark.parametrize(("call", "message"), BAD_VALUES)
def test_bad_values_are_refused(as_a_user, call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("call", "message"), BAD_TYPES)
def test_bad_types_are_refused(as_a_user, call, message):
    with pytest.raises(TypeError, match=message):
        call()
