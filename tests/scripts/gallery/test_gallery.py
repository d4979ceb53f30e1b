"""What makes a gallery: what is there stays, what is missing is made, what fails is shown."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from rvis.analysis import metrics
from rvis.plotting import grids
from scripts import gallery
from scripts.gallery import __main__ as command
from scripts.gallery import measures
from scripts.gallery.base import Outcome, Part, Section, Tables, Verdict


def _made(level):
    return np.full((8, 8, 3), level)


def _broken():
    raise RuntimeError("no <such> thing")


def _shown(image):
    return Outcome(grids.to_pil(image), {"whole": {"mean": float(image.mean())}})


def _judge(tables: Tables) -> Verdict:
    return Verdict("yes", f"The mean is {tables['light']['whole']['mean']:.2f}.")


def _part(name, level, **changes):
    numbers = {"level": (level, level)}
    return Part(name, f"{name}.", f"a {name} & plain square", _made, _shown, numbers, **changes)


LIGHT, DARK = _part("light", 0.75), _part("dark", 0.25)
BROKEN = Part("broken", "Nothing.", "nothing", _broken, _shown)
PLAIN = Section("plain", "Plain squares", "Squares are <plain>.", (LIGHT, DARK), _judge)
FAILING = Section("failing", "Failing", "It fails.", (BROKEN, _part("fine", 0.5)), _judge)


def _files(folder):
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.iterdir()
        if path.suffix != ".html"
    }


@pytest.fixture
def made(tmp_path):
    assert gallery.make(tmp_path, [PLAIN]) == 0
    return tmp_path


def test_a_part_is_a_picture_and_its_figures(made):
    card = json.loads((made / "01_plain_light.json").read_text())
    assert card["table"] == {"whole": {"mean": 0.75}}
    assert card["shape"] == [8, 8]
    picture = (made / "01_plain_light.png").read_bytes()
    assert card["picture"] == hashlib.sha256(picture).hexdigest()


def test_what_is_there_is_not_made_again(made):
    before = _files(made)
    gallery.make(made, [PLAIN])
    assert _files(made) == before


def _delete(path):
    path.unlink()


def _alter(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [_delete, _alter])
@pytest.mark.parametrize("name", ["01_plain_light.png", "01_plain_light.json"])
def test_what_is_lost_is_made_again_and_nothing_else(made, name, harm):
    before = _files(made)
    content = (made / name).read_bytes()
    harm(made / name)
    gallery.make(made, [PLAIN])
    after = _files(made)
    assert {file for file in before if before[file] != after[file]} <= {
        "01_plain_light.png",
        "01_plain_light.json",
    }
    if name.endswith("png"):
        assert (made / name).read_bytes() == content


def test_other_numbers_make_it_again(made):
    other = Section("plain", "", "", (_part("light", 0.5), DARK), _judge)
    gallery.make(made, [other])
    assert json.loads((made / "01_plain_light.json").read_text())["table"]["whole"]["mean"] == 0.5


def test_a_failing_part_is_shown_and_the_others_go_on(tmp_path):
    said = []
    assert gallery.make(tmp_path, [FAILING, PLAIN], report=said.append) == 1
    page = (tmp_path / "index.html").read_text()
    assert "no &lt;such&gt; thing" in page
    assert (tmp_path / "01_failing_fine.png").exists()
    assert (tmp_path / "02_plain_light.png").exists()
    assert said == ["failed: failing, broken: RuntimeError: no <such> thing"]


def test_a_claim_without_its_figures_is_not_measured(tmp_path):
    gallery.make(tmp_path, [FAILING], report=lambda line: None)
    assert "not measured" in (tmp_path / "index.html").read_text()


def test_a_claim_that_cannot_be_judged_has_failed(tmp_path):
    alone, said = Section("alone", "", "", (DARK,), _judge), []
    assert gallery.make(tmp_path, [alone, PLAIN], report=said.append) == 1
    assert said == ["failed: alone: The figures could not be judged: KeyError: 'light'"]
    assert "KeyError: &#x27;light&#x27;" in (tmp_path / "index.html").read_text()
    assert (tmp_path / "02_plain_light.png").exists()


def test_the_page_says_what_is_claimed_measured_and_how(made):
    page = (made / "index.html").read_text()
    for text in (
        "Squares are &lt;plain&gt;.",
        "The mean is 0.75.",
        'alt="a light &amp; plain square"',
        "level = 0.75\nnp.full((8, 8, 3), level)",
        'class="mark yes"',
    ):
        assert text in page
    assert "http" not in page and "@" not in page.split("</style>")[1]


def test_a_quick_run_says_which_verdicts_need_the_full_one(tmp_path):
    section = dataclasses.replace(PLAIN, needs="It is small.")
    for size, mark in (("quick", "needs-the-full-run"), ("full", "yes")):
        gallery.make(tmp_path, [section], size=size)
        page = (tmp_path / "index.html").read_text()
        assert f'class="mark {mark}"' in page
        assert ("It is small. So far: The mean is 0.75." in page) == (size == "quick")


def test_what_a_quick_run_leaves_out_is_said(tmp_path):
    dark = dataclasses.replace(DARK, quick=False)
    section = dataclasses.replace(PLAIN, parts=(dark,), needs="It is dark.")
    gallery.make(tmp_path, [section], size="quick")
    assert not list(tmp_path.glob("*.png"))
    assert "dark: left to the full run" in (tmp_path / "index.html").read_text()
    told = section.verdict({"other": {}}, size="quick")
    assert (told.holds, told.text) == ("needs the full run", "It is dark.")


def test_an_interval_is_one_cell(tmp_path):
    def tell(image):
        found = measures.told("right", metrics.share([True, True, False]))
        return Outcome(grids.to_pil(image), {"of three": found})

    part = Part("light", "", "", _made, tell, {"level": (0.1, 0.1)})
    gallery.make(tmp_path, [dataclasses.replace(PLAIN, parts=(part,))])
    page = (tmp_path / "index.html").read_text()
    assert "<td>0.667 <small>[0.208, 0.939]</small></td>" in page
    assert "right, low" not in page


def test_the_page_is_readable_on_a_phone_in_the_dark_and_without_pictures(made):
    page = (made / "index.html").read_text()
    assert '<meta name="viewport" content="width=device-width' in page
    assert "prefers-color-scheme: dark" in page and "color-scheme: light dark" in page
    assert "max-width: 100%" in page  # no picture is wider than the screen
    # Whatever may be wider scrolls by itself.
    assert page.count('<div class="wide"><table>') == page.count("<table>")
    assert all("alt=" in tag and 'alt=""' not in tag for tag in re.findall("<img[^>]*>", page))


def test_only_what_is_chosen_is_made(tmp_path):
    gallery.make(tmp_path, [FAILING, PLAIN], only=["plain"])
    assert [path.name[:2] for path in tmp_path.glob("*.png")] == ["02", "02"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"only": ["plane"]}, "only.*plain"), ({"size": "quik"}, "size.*quick")],
)
def test_a_misspelt_choice_gets_the_nearest(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        gallery.make(tmp_path, [PLAIN], **options)


def test_an_interrupted_run_goes_on(tmp_path):
    def interrupted(image):
        raise KeyboardInterrupt

    late = Part("late", "", "late", _made, interrupted, {"level": (0.1,) * 2})
    section = Section("plain", "", "", (LIGHT, late), _judge)
    with pytest.raises(KeyboardInterrupt):
        gallery.make(tmp_path, [section])
    before = _files(tmp_path)
    gallery.make(tmp_path, [PLAIN])
    assert before.items() <= _files(tmp_path).items()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main(["--out", str(tmp_path / "file" / "out"), "--only", "fields"]) == 2
    assert "file" in capsys.readouterr().err
