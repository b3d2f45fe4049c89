"""Loggers are kept back while we use a library, and are exactly as they were afterwards."""

import logging

import pytest

from shortgpt.utils.quieting import quiet

NAME = "shortgpt_tests.a_library"


@pytest.fixture
def logger():
    logger = logging.getLogger(NAME)
    yield logger
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("before", [logging.NOTSET, logging.DEBUG, logging.WARNING, logging.CRITICAL])
def test_the_level_is_back_afterwards_also_after_an_exception(logger, before):
    logger.setLevel(before)
    with quiet(NAME):
        assert logger.level == max(logging.ERROR, before)
    assert logger.level == before
    with pytest.raises(KeyError), quiet(NAME):
        raise KeyError
    assert logger.level == before


def test_less_serious_lines_are_kept_back_also_of_loggers_below(logger, caplog):
    below = logging.getLogger(f"{NAME}.part")
    with quiet(NAME):
        below.warning("kept back")
        below.error("told")
    below.warning("told again")
    assert [record.message for record in caplog.records] == ["told", "told again"]


def test_a_level_may_be_chosen_and_nobody_is_made_louder(logger):
    logger.setLevel(logging.CRITICAL)
    with quiet(NAME, level=logging.INFO):
        assert logger.level == logging.CRITICAL
    logger.setLevel(logging.DEBUG)
    with quiet(NAME, level=logging.WARNING):
        assert logger.level == logging.WARNING


def test_one_inside_the_other(logger):
    with quiet(NAME):
        with quiet(NAME, level=logging.CRITICAL):
            assert logger.level == logging.CRITICAL
        assert logger.level == logging.ERROR
    assert logger.level == logging.NOTSET


def test_several_and_none_that_is_not_named(logger):
    other, aside = logging.getLogger(f"{NAME}_2"), logging.getLogger(f"{NAME}_3")
    with quiet(NAME, other.name):
        assert (logger.level, other.level, aside.level) == (logging.ERROR, logging.ERROR, logging.NOTSET)
    assert (logger.level, other.level, aside.level) == (logging.NOTSET,) * 3
    with quiet():
        assert logger.level == logging.NOTSET
