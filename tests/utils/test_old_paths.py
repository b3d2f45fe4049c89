"""Module paths of before the rooms go on working, say where the module is now, and change nothing about it."""

import subprocess
import sys
import warnings
from importlib import import_module, reload
from operator import attrgetter
from pathlib import Path

import pytest

import shortgpt
from shortgpt.utils.old_paths import MOVED, install


@pytest.fixture
def unseen():
    """As in a session in which no old path was used yet."""
    for old in MOVED:
        sys.modules.pop(f"shortgpt.{old}", None)
        vars(shortgpt).pop(old, None)


def ours(seen: list[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    return [each for each in seen if " is now shortgpt." in str(each.message)]


@pytest.mark.parametrize("old", MOVED)
def test_the_old_path_gives_the_module_itself_and_tells_once_where_it_is(old, unseen):
    new = import_module(f"shortgpt.{MOVED[old]}")
    spec, name, loader = new.__spec__, new.__name__, new.__loader__
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        __import__(f"shortgpt.{old}")
        __import__(f"shortgpt.{old}")  # the second time it is there
    (warning,) = ours(seen)
    assert warning.category is DeprecationWarning and warning.filename == __file__
    assert str(warning.message) == f"shortgpt.{old} is now {new.__name__}: import it from there"
    assert sys.modules[f"shortgpt.{old}"] is new and attrgetter(old)(shortgpt) is new
    assert new.__spec__ is spec and new.__name__ == name and new.__loader__ is loader
    assert sys.modules[f"shortgpt.{MOVED[old]}"] is new


@pytest.mark.filterwarnings("ignore:.* is now shortgpt:DeprecationWarning")
def test_every_way_to_write_the_import(unseen):
    import shortgpt.influence as renamed
    from shortgpt.likelihood import perplexity

    from shortgpt import calibration

    assert renamed is import_module("shortgpt.scoring.influence") and calibration is import_module(
        "shortgpt.model.text"
    )
    assert perplexity is shortgpt.perplexity


@pytest.mark.filterwarnings("ignore:.* is now shortgpt:DeprecationWarning")
def test_as_an_attribute_without_an_import(unseen):
    assert shortgpt.quiz is import_module("shortgpt.course.quiz")


def test_nobody_inside_uses_an_old_path(unseen):
    """pyproject.toml makes the warning an error in the suite."""
    with pytest.raises(DeprecationWarning, match="shortgpt.influence is now shortgpt.scoring.influence"):
        import_module("shortgpt.influence")


@pytest.mark.parametrize("name", ["shortgpt.no_such_module", "shortgpt.influence.deeper", "shortgpt.scoring.quiz"])
@pytest.mark.filterwarnings("ignore:.* is now shortgpt:DeprecationWarning")
def test_an_unknown_module_is_the_ordinary_error(name, unseen):
    with pytest.raises(ModuleNotFoundError, match=rf"^No module named '{name.rpartition('.deeper')[0] or name}"):
        import_module(name)


def test_an_unknown_name_is_the_ordinary_error():
    with pytest.raises(AttributeError, match="module 'shortgpt' has no attribute 'no_such_name'"):
        _ = shortgpt.no_such_name


def test_the_old_names_are_looked_up_once_however_often_the_package_is_loaded(unseen):
    def finders():
        return sum(type(finder).__name__ == "_Moved" for finder in sys.meta_path)

    install()
    reload(shortgpt)
    assert finders() == 1
    with pytest.warns(DeprecationWarning, match="is now shortgpt.course.quiz"):
        import_module("shortgpt.quiz")


def test_no_module_stands_where_an_old_name_leads_away_from():
    """The finder is asked last: a module of that name would hide it."""
    rooms = {path.stem for path in Path(shortgpt.__file__).parent.iterdir()}
    assert not rooms & MOVED.keys()


def test_an_old_path_brings_no_complaints_of_other_libraries():
    """It is not behind a door, so it has to keep torchao quiet itself."""
    code = "import warnings; warnings.simplefilter('ignore'); from shortgpt.likelihood import perplexity"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stderr
