"""Strict JAX settings for every test: float64, no silent broadcasting, no silent promotion."""

import gc
import os

import jax
import jaxtyping
import pytest

from physml._numerics import compiled

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 2)  # the second for what is shared out among devices
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    # JAX keeps what it has traced, and a search of it all for garbage finds little: with Python's
    # own thresholds that takes an eighth of the tests' time.
    gc.set_threshold(50_000, 20, 20)
    # What was compiled is kept in .pytest_cache (`pytest --cache-clear` empties it): compiling is
    # most of the tests' time, so a second run takes about a quarter of it. The scripts that tests
    # start keep it there as well, and not in the user's own folder.
    if config.cache is not None:
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "not slow" in config.option.markexpr:
        compile_quickly()


def compile_quickly():
    """Let XLA optimise little: compiling is most of the time of the tests that are not slow.

    The slow tests and `as_compiled_for_users` compile as users do, and so does what tests start in
    processes of its own, if they do not use `started_quickly`.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    flags = os.environ.get("XLA_FLAGS", "")
    # It makes two loops of each reduction of more than 32 numbers, compiled by themselves.
    os.environ["XLA_FLAGS"] = f"{flags} --xla_disable_hlo_passes=tree_reduction_rewriter"
    jax.devices()  # XLA reads the flags once, now; the processes that tests start do without
    os.environ["XLA_FLAGS"] = flags


def pytest_collection_modifyitems(items):
    """The longest tests come first, so that none of them is left to one process at the end."""
    longest = "test_scripts", "test_examples", "test_saving"
    items.sort(key=lambda item: item.path.stem not in longest)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each process takes neighbouring tests, so that what they share is made and compiled once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Forgets programs before they take all the maps of memory that Linux grants a process."""
    yield
    compiled.make_room()


@pytest.fixture
def programs_stay(monkeypatch):
    """For tests that count what is compiled: no program is forgotten to make room meanwhile."""
    monkeypatch.setattr(compiled, "make_room", lambda: None)


@pytest.fixture(scope="module")
def as_compiled_for_users():
    """All of XLA's optimisations for the programs of a module that they must not spoil."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def started_quickly(monkeypatch):
    """What a test starts in processes of its own is compiled with few of XLA's optimisations."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture
def as_a_user():
    """The library's own checks, without the run-time type checks of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
